"""Conversations that need more than one client, or a client's state. The language is in conversations.py."""

TRANSACTIONS = r"""
== whole
a: SET %k 1 ; MULTI ; INCR %k ; GET %k ; LPUSH %k x ; EXEC ; GET %k
c3: MULTI ; HSET %h f v ; HGETALL %h ; ZADD %z 1 a ; ZRANGE %z 0 -1 WITHSCORES ; EXEC
== partial
a: MULTI
a: SET %k 1
a: INCR %k
b: GET %k
a: LPUSH %k x
a: EXEC
b: GET %k
== partial in RESP3
c3: MULTI
c3: HSET %h f v ; HGETALL %h
c3: EXEC
c3: HGETALL %h
== in two halves
a: SET %k 0 ; MULTI ; INCR %k
a: INCR %k ; EXEC ; GET %k
== empty
a: MULTI ; EXEC ; MULTI
a: EXEC
== without MULTI
a: EXEC ; DISCARD ; UNWATCH ; EXEC extra ; DISCARD extra ; MULTI extra ; WATCH
== nested
a: MULTI ; MULTI ; SET %k 1 ; EXEC ; GET %k
a: MULTI
a: MULTI
a: EXEC
== discard
a: SET %k 1 ; MULTI ; SET %k 2 ; DISCARD ; GET %k
a: MULTI
a: SET %k 3
a: DISCARD
a: GET %k ; EXEC
== queue-time errors
a: MULTI ; SET %k ; SET %k 1 ; EXEC ; GET %k
a: MULTI
a: NOSUCH a b
a: SET %k 1
a: EXEC
a: GET %k
a: MULTI ; GET ; DISCARD ; MULTI ; SET %k 5 ; EXEC
== EXEC with arguments
a: MULTI ; SET %k 1 ; EXEC x ; EXEC
a: MULTI ; DISCARD x ; EXEC
== WATCH changed by another
a: SET %k 1 ; WATCH %k
b: SET %k 2
a: MULTI ; SET %k 3 ; EXEC ; GET %k
c3: WATCH %k
b: SET %k 4
c3: MULTI
c3: SET %k 5
c3: EXEC
c3: GET %k
== WATCH not changed
a: WATCH %k %l
b: GET %k
a: MULTI ; SET %k 3 ; EXEC ; GET %k
== WATCH changed by itself
a: WATCH %k ; SET %k 1 ; MULTI ; SET %k 2 ; EXEC ; GET %k
== WATCH then UNWATCH
a: WATCH %k
b: SET %k 2
a: UNWATCH ; MULTI ; SET %k 3 ; EXEC ; GET %k
== WATCH then DISCARD
a: WATCH %k ; MULTI ; DISCARD
b: SET %k 2
a: MULTI ; SET %k 3 ; EXEC ; GET %k
== WATCH ended by EXEC
a: WATCH %k ; MULTI ; EXEC
b: SET %k 2
a: MULTI ; SET %k 3 ; EXEC ; GET %k
== WATCH inside MULTI
a: MULTI ; WATCH %k ; SET %k 1 ; EXEC ; GET %k
== WATCH, touched but the same
a: SET %k 1 ; WATCH %k
b: SET %k 1
a: MULTI ; GET %k ; EXEC
== WATCH an expiring key
a: SET %k 1 PX 100000 ; WATCH %k
b: PEXPIRE %k 0
a: MULTI ; SET %k 3 ; EXEC ; GET %k
== WATCH in another db
a: SELECT 1 ; WATCH %k ; SELECT 0
b: SET %k 1
a: MULTI ; SET %k 3 ; EXEC ; GET %k
a: SELECT 1 ; WATCH %k ; SELECT 0
b: SELECT 1 ; SET %k 2
a: MULTI ; SET %k 4 ; EXEC ; GET %k
b: DEL %k
== WATCH with FLUSHDB
a: SELECT 7 ; SET %k 1 ; WATCH %k
b: SELECT 7 ; FLUSHDB
a: MULTI ; SET %k 3 ; EXEC ; FLUSHDB
== SELECT inside MULTI
a: MULTI ; SELECT 1 ; SET %k one ; EXEC ; GET %k ; SELECT 0 ; GET %k
a: MULTI
a: SELECT 1
a: GET %k
a: EXEC
a: GET %k ; DEL %k
a: MULTI ; SELECT 99 ; GET %k ; EXEC ; GET %k
== MULTI then SELECT then DISCARD
a: MULTI ; SELECT 1 ; DISCARD ; SET %k zero ; SELECT 1 ; GET %k
== blocking inside MULTI
a: RPUSH %q a b c ; MULTI ; BLPOP %q 0 ; BLPOP %none 0 ; BRPOP %q 0 ; BLMOVE %q %r LEFT RIGHT 0 ; XREAD BLOCK 0 STREAMS %x $ ; BZPOPMIN %z 0 ; EXEC
c3: MULTI
c3: BLPOP %none 0
c3: XREAD BLOCK 0 STREAMS %x $
c3: EXEC
== sessions inside MULTI
a: MULTI ; PING ; ECHO x ; CLIENT GETNAME ; CLIENT SETNAME me ; CLIENT GETNAME ; EXEC ; CLIENT GETNAME
a: MULTI
a: CLIENT SETNAME again
a: CLIENT GETNAME
a: EXEC
a: CLIENT GETNAME
== CLIENT ID inside MULTI
a: MULTI ; CLIENT ID ; EXEC
== HELLO inside MULTI
a: MULTI ; HELLO 3 ; HGETALL %h ; EXEC
a: HGETALL %h
== AUTH inside MULTI
a: MULTI ; AUTH x ; AUTH default x ; EXEC
== SUBSCRIBE inside MULTI
c3: MULTI ; SUBSCRIBE %c ; GET %k ; EXEC
b: PUBLISH %c hi
c3: UNSUBSCRIBE
== SUBSCRIBE inside MULTI, RESP2
a: MULTI ; SUBSCRIBE %c ; EXEC
b: PUBLISH %c hi
a: PING ; UNSUBSCRIBE
a: GET %k
== RESET inside MULTI
a: MULTI ; SET %k 1 ; RESET ; EXEC ; GET %k
== QUIT inside MULTI
a: MULTI ; SET %k 1 ; QUIT
a!
b: GET %k
== closed inside MULTI
a: MULTI ; SET %k 1
a close
b: GET %k
== scripts inside MULTI
a: MULTI ; EVAL return(redis.call('SET',KEYS[1],'x')) 1 %k ; SCRIPT LOAD return(9) ; PUBLISH %c x ; GET %k ; EXEC
== administration inside MULTI
a: MULTI ; CONFIG GET maxmemory ; DBSIZE extra ; EXEC
a: MULTI ; CONFIG GET maxmemory ; MEMORY USAGE %none ; OBJECT ENCODING %none ; WAIT 0 0 ; LASTSAVE extra ; EXEC
a: MULTI ; CONFIG GET maxmemory ; WAIT 0 0 ; TYPE %none ; EXEC
== CLIENT REPLY inside MULTI
a: MULTI ; CLIENT REPLY SKIP ; GET %k ; EXEC
a: PING
== FLUSHALL inside MULTI
a: SELECT 7 ; SET %k 1 ; MULTI ; FLUSHDB ; SET %k 2 ; EXEC ; GET %k ; FLUSHDB
== an expired key in MULTI
a: MULTI ; SET %k 1 PX 1 EX 1 ; SET %k v ; PEXPIRE %k -1 ; GET %k ; EXEC
== many blocks in one write
a: MULTI ; INCR %k ; EXEC ; INCR %k ; MULTI ; INCR %k ; INCR %k ; EXEC ; MULTI ; DISCARD ; MULTI ; NOSUCH ; INCR %k ; EXEC ; GET %k
"""

BLOCKING = r"""
== served in order of arrival
a: BLPOP %q 0
c3: BLPOP %q 0
d: BLPOP %q 0
b: RPUSH %q x y
b: LLEN %q
b: RPUSH %q z1 z2
b: LRANGE %q 0 -1
== several keys
a: BLPOP %p %q %r 0
b: RPUSH %r 1 ; RPUSH %q 2 ; RPUSH %p 3
b: LLEN %r ; LLEN %q ; LLEN %p
a: BRPOP %r %q %p 0
== from both ends
a: BRPOP %q 0
b: RPUSH %q x y z
a: BRPOP %q 0 ; BLPOP %q 0
== a chain
a: BLMOVE %q %r LEFT RIGHT 0
c: BLPOP %r 0
b: RPUSH %q x
b: EXISTS %q %r
== a ring
a: BRPOPLPUSH %q %q 0
b: RPUSH %q x
b: LRANGE %q 0 -1
== deleted behind the push
a: BLPOP %q 0
b: RPUSH %q x ; DEL %q ; EXISTS %q
a: PING
== deleted inside the transaction
a: BLPOP %q 0
b: MULTI ; RPUSH %q x ; DEL %q ; EXEC
b: RPUSH %q later
a: PING
== two pushes in a transaction
a: BLPOP %q 0
c: BRPOP %q 0
b: MULTI ; RPUSH %q x ; RPUSH %q y z ; EXEC ; LRANGE %q 0 -1
== a transaction in parts
a: BLPOP %q 0
b: MULTI
b: RPUSH %q x y
b: EXEC
b: LRANGE %q 0 -1
== wrong type goes on waiting
a: BLPOP %q 0
b: SET %q v ; DEL %q ; RPUSH %q x
a: BLPOP %s 0
b: SADD %s m
b: DEL %s
b: LPUSH %s y
== wrong type at once
a: SET %s v ; BLPOP %s 0 ; BZPOPMIN %s 0 ; BLMOVE %s %q LEFT LEFT 0 ; XREAD BLOCK 0 STREAMS %s 0
a: RPUSH %q x ; BLMOVE %q %s LEFT LEFT 0 ; BRPOPLPUSH %q %s 0 ; LLEN %q
== wrong type of the destination, later
a: BLMOVE %q %s LEFT LEFT 0
b: SET %s v ; RPUSH %q x
b: LLEN %q
== timeouts
a: BLPOP %q 0.02
a< 1
c3: BLPOP %q 0.02
c3< 1
a: BLMOVE %q %r LEFT LEFT 0.02
a< 1
a: BRPOPLPUSH %q %r 0.02
a< 1
c3: BRPOPLPUSH %q %r 0.02
c3< 1
a: BZPOPMAX %z 0.02
a< 1
a: XREAD BLOCK 20 STREAMS %x $
a< 1
c3: XREAD BLOCK 20 STREAMS %x $
c3< 1
a: GET %k
== timeouts >= 7.0
a: BLMPOP 0.02 1 %q LEFT
a< 1
c3: BZMPOP 0.02 1 %z MIN
c3< 1
a: PING
== wrong timeouts
a: BLPOP %q x ; BLPOP %q -1 ; BLPOP %q 1e300 ; BLPOP %q inf ; BLPOP %q "" ; BLPOP %q nan
a: XREAD BLOCK -1 STREAMS %x $ ; XREAD BLOCK x STREAMS %x $ ; XREAD BLOCK 1.5 STREAMS %x $ ; BLMOVE %q %r LEFT LEFT x ; BRPOPLPUSH %q %r -1 ; BZPOPMIN %q -0.5
== wrong timeouts >= 7.0
a: BLMPOP x 1 %q LEFT ; BLMPOP -1 1 %q LEFT ; BLMPOP 1 0 %q LEFT ; BLMPOP 1 x %q LEFT ; BZMPOP 1 1 %q UP ; BZMPOP 1 2 %q MIN
== what comes behind waits
a: BLPOP %q 0 ; SET %k v ; GET %k ; BLPOP %q 0
b: EXISTS %k
b: RPUSH %q x
b: EXISTS %k
b: RPUSH %q y
== gone while waiting
a: BLPOP %q 0
c: BLPOP %q 0
a close
b: RPUSH %q x y
b: LRANGE %q 0 -1
== CLIENT UNBLOCK
a: BLPOP %q 0
b: CLIENT UNBLOCK {a} ; CLIENT UNBLOCK {a}
c3: BLPOP %q 0
b: CLIENT UNBLOCK {c3} TIMEOUT
a: BLMOVE %q %r LEFT LEFT 0
b: CLIENT UNBLOCK {a} ERROR ; RPUSH %q x ; LRANGE %q 0 -1
a: XREAD BLOCK 0 STREAMS %x $
b: CLIENT UNBLOCK {a} error ; CLIENT UNBLOCK {a} NOSUCH ; CLIENT UNBLOCK x
== CLIENT KILL
a: BLPOP %q 0
b: CLIENT KILL ID {a}
a!
b: RPUSH %q x ; LLEN %q
== sorted sets
a: BZPOPMIN %z 0
c3: BZPOPMAX %z 0
b: ZADD %z 1 a 2 b 3 c ; ZRANGE %z 0 -1
a: BZPOPMIN %y %z 0
== sorted sets, by other commands
a: BZPOPMIN %z 0
b: ZADD %tmp 1 a 2 b ; ZUNIONSTORE %z 1 %tmp ; ZCARD %z
a: BZPOPMIN %g 0
b: GEOADD %g 13 38 here ; EXISTS %g
a: BZPOPMIN %w 0
b: ZINCRBY %w 2 m ; EXISTS %w
== several at once >= 7.0
a: BLMPOP 0 2 %p %q RIGHT COUNT 2
c3: BZMPOP 0 2 %y %z MAX COUNT 5
b: RPUSH %q 1 2 3 ; ZADD %z 1 a 2 b ; LRANGE %q 0 -1 ; EXISTS %z
== streams
a: XREAD BLOCK 0 STREAMS %x $
c3: XREAD COUNT 1 BLOCK 0 STREAMS %x %y $ $
d: XREAD BLOCK 0 STREAMS %x 5-0
b: XADD %x 1-1 f v
b: XADD %x 5-1 f w ; XADD %x 5-2 f w
a: XREAD BLOCK 0 STREAMS %x 1-1
== streams, the last id is that of the call
b: XADD %x 1-1 f v
a: XREAD BLOCK 0 STREAMS %x $
b: XDEL %x 1-1 ; XADD %x 1-2 f v
a: XREAD BLOCK 0 STREAMS %x $
b: DEL %x
b: XADD %x 0-1 f v
b: XADD %x 9-1 f v
== groups
b: XGROUP CREATE %x g $ MKSTREAM
a: XREADGROUP GROUP g one BLOCK 0 STREAMS %x >
c3: XREADGROUP GROUP g two COUNT 1 BLOCK 0 STREAMS %x >
b: XADD %x 1-1 f v
b: XADD %x 2-1 f v
b: XPENDING %x g
a: XREADGROUP GROUP g one BLOCK 0 STREAMS %x 0 ; XREADGROUP GROUP nosuch one BLOCK 0 STREAMS %x >
== a group destroyed under its reader
b: XGROUP CREATE %x g $ MKSTREAM
a: XREADGROUP GROUP g one BLOCK 0 STREAMS %x >
b: XGROUP DESTROY %x g
a!
== a stream deleted under its reader >= 7.2
b: XGROUP CREATE %x g $ MKSTREAM
a: XREADGROUP GROUP g one BLOCK 0 STREAMS %x >
b: DEL %x
c: XGROUP CREATE %y g $ MKSTREAM
a: XREADGROUP GROUP g one BLOCK 0 STREAMS %y >
c: SET %y v
== pushed by other commands
a: BLPOP %q 0
b: RPUSH %tmp x ; RENAME %tmp %q ; EXISTS %q
a: BLPOP %q 0
b: RPUSH %tmp y ; LMOVE %tmp %q LEFT LEFT ; EXISTS %q
a: BLPOP %q 0
b: RPUSH %tmp z ; RPOPLPUSH %tmp %q ; EXISTS %q
a: BLPOP %q 0
b: RPUSH %tmp 2 1 ; SORT %tmp STORE %q ; LRANGE %q 0 -1 ; DEL %q
a: BLPOP %q 0
b: COPY %tmp %q ; LRANGE %q 0 -1 ; DEL %q
a: BLPOP %q 0
b: EVAL return(redis.call('RPUSH',KEYS[1],'s','t')) 1 %q ; LRANGE %q 0 -1
== pushed by a script without keys
a: BLPOP %q 0
b: EVAL return(redis.call('RPUSH',ARGV[1],'s')) 0 %q
a: PING
== pushed into another db
a: SELECT 1 ; BLPOP %q 0
b: RPUSH %q x ; LLEN %q
b: SELECT 1 ; RPUSH %q y ; EXISTS %q
b: SELECT 0 ; RPUSH %r z
a: BLPOP %r 0
b: MOVE %r 1 ; SELECT 1 ; EXISTS %r
== RESTORE serves
b: RPUSH %tmp a b ; DUMP %tmp
a: BLPOP %q 0
b: RPUSH %q x
== the served one writes
a: BLPOP %q 0 ; RPUSH %r done
c: BLPOP %r 0
b: RPUSH %q x
== blocked, then subscribes
a: BLPOP %q 0 ; SUBSCRIBE %c
b: RPUSH %q x
b: PUBLISH %c hi
a: UNSUBSCRIBE
"""

PUBSUB = r"""
== channels
a: SUBSCRIBE %c %d
b: PUBLISH %c one ; PUBLISH %d two ; PUBLISH %e three
a: UNSUBSCRIBE %c
b: PUBLISH %c four ; PUBLISH %d five
a: UNSUBSCRIBE
b: PUBLISH %d six
a: GET %k
== channels in RESP3
c3: SUBSCRIBE %c %d
b: PUBLISH %c one ; PUBLISH %d two
c3: SET %k v ; GET %k ; PUBLISH %c self
c3: UNSUBSCRIBE %c ; GET %k
b: PUBLISH %c four ; PUBLISH %d five
c3: UNSUBSCRIBE
c3: GET %k
== patterns
a: PSUBSCRIBE %*
b: PUBLISH %c x
a: SUBSCRIBE %c
b: PUBLISH %c y
a: PUNSUBSCRIBE %*
b: PUBLISH %c z
a: PUNSUBSCRIBE ; UNSUBSCRIBE
a: GET %k
== patterns in RESP3
c3: PSUBSCRIBE %* ; SUBSCRIBE %c ; PING
b: PUBLISH %c y
c3: PUNSUBSCRIBE ; UNSUBSCRIBE ; PING
== shard channels >= 7.0
a: SSUBSCRIBE %c %d
c3: SSUBSCRIBE %c
b: SPUBLISH %c x ; PUBLISH %c no ; SPUBLISH %d y
a: SUNSUBSCRIBE %c
c3: SUNSUBSCRIBE ; GET %k
b: SPUBLISH %c x
a: SUNSUBSCRIBE
a: GET %k
== nothing to unsubscribe from
a: UNSUBSCRIBE
a: PUNSUBSCRIBE ; GET %k
a: UNSUBSCRIBE %c %d ; GET %k
c3: UNSUBSCRIBE
c3: PUNSUBSCRIBE %x ; GET %k
== twice
a: SUBSCRIBE %c %c
a: SUBSCRIBE %c
b: PUBLISH %c x
a: UNSUBSCRIBE %c %c %d
a: GET %k
== what is allowed while subscribed
a: SUBSCRIBE %c
a: GET %k
a: PING
a: PING hi
a: PING a b
a: MULTI
a: CLIENT ID
a: CLIENT GETNAME
a: CLIENT SETNAME x
a: CLIENT LIST
a: AUTH x
a: ECHO x
a: SELECT 1
a: NOSUCH
a: PUBLISH %c x
a: UNSUBSCRIBE
a: PING
== one write
a: SUBSCRIBE %c ; PING ; PUBSUB NUMSUB %c ; UNSUBSCRIBE ; PING ; GET %k
c3: SUBSCRIBE %c ; PING ; PUBLISH %c x ; GET %k ; UNSUBSCRIBE ; PING
== SUBSCRIBE behind other commands
a: SET %k v ; GET %k ; SUBSCRIBE %c
b: PUBLISH %c hi
== what the server says about it
a: SUBSCRIBE %c %d
c3: PSUBSCRIBE %*
b: PUBSUB CHANNELS %c ; PUBSUB NUMSUB %c %d %e ; PUBSUB NUMPAT
a close
c3: PUNSUBSCRIBE
b: PUBSUB NUMSUB %c %d %e ; PUBSUB NUMPAT
== RESET while subscribed
a: SUBSCRIBE %c
a: RESET
a: GET %k
b: PUBLISH %c x
== QUIT while subscribed
a: SUBSCRIBE %c
a: QUIT
a!
== HELLO while subscribed
a: SUBSCRIBE %c
a: HELLO 3
b: PUBLISH %c x
a: GET %k
a: UNSUBSCRIBE
== from RESP3 to RESP2 while subscribed
c3: SUBSCRIBE %c
c3: HELLO 2
b: PUBLISH %c x
c3: GET %k
== binary
a: SUBSCRIBE %\x00\r\n
b: PUBLISH %\x00\r\n \r\n\x00\xff
== from a transaction
a: SUBSCRIBE %c
b: MULTI ; PUBLISH %c one ; PUBLISH %c two ; EXEC
b: EVAL return(redis.call('PUBLISH',ARGV[1],'script')) 0 %c
== subscribed and blocked, RESP3
c3: SUBSCRIBE %c ; BLPOP %q 0
b: PUBLISH %c hi
b: RPUSH %q x
c3: PING
== subscribed and in MULTI, RESP3
c3: SUBSCRIBE %c ; MULTI ; GET %k
b: PUBLISH %c hi
c3: EXEC
== keyspace events
a: CONFIG SET notify-keyspace-events KEA
a: PSUBSCRIBE __keyspace@0__:%*
b: SET %k v ; DEL %k
b: CONFIG SET notify-keyspace-events ""
"""

TRACKING = r"""
== default
c3: CLIENT TRACKING ON ; SET %k 1 ; GET %k
b: SET %k 2
b: SET %k 3
c3: GET %k ; MGET %k %l
b: SET %l 1 ; DEL %k
c3: CLIENT TRACKING OFF ; GET %k
b: SET %k 4
c3: PING
== own writes
c3: CLIENT TRACKING ON ; GET %k ; SET %k 1 ; GET %k ; INCR %k
c3: CLIENT TRACKING OFF
== NOLOOP
c3: CLIENT TRACKING ON NOLOOP ; GET %k ; SET %k 1 ; GET %k
b: SET %k 2
== BCAST
c3: CLIENT TRACKING ON BCAST PREFIX %a PREFIX %b
b: SET %a1 x ; SET %b1 x ; SET %c1 x
c3: GET %c1
b: SET %c1 y
c3: SET %a2 own
== BCAST NOLOOP
c3: CLIENT TRACKING ON BCAST PREFIX % NOLOOP
c3: SET %k own
b: SET %k other
== OPTIN
c3: CLIENT TRACKING ON OPTIN ; GET %k
b: SET %k 1
c3: CLIENT CACHING YES ; GET %k ; GET %l
b: SET %k 2 ; SET %l 2
c3: CLIENT CACHING NO
== OPTIN with MULTI
c3: CLIENT TRACKING ON OPTIN ; CLIENT CACHING YES ; MULTI ; GET %k ; GET %l ; EXEC
b: SET %k 2 ; SET %l 2
== OPTOUT
c3: CLIENT TRACKING ON OPTOUT ; GET %k
b: SET %k 1
c3: CLIENT CACHING NO ; GET %k ; GET %l
b: SET %k 2 ; SET %l 2
c3: CLIENT CACHING YES
== wrong ones
a: CLIENT CACHING YES ; CLIENT TRACKING ON PREFIX x ; CLIENT TRACKING ON OPTIN OPTOUT ; CLIENT TRACKING ON BCAST OPTIN ; CLIENT TRACKING X ; CLIENT TRACKING
a: CLIENT TRACKING ON BCAST PREFIX a PREFIX ab ; CLIENT TRACKING ON REDIRECT 999999 ; CLIENT TRACKING ON REDIRECT x
c3: CLIENT TRACKING ON ; CLIENT TRACKING ON BCAST ; CLIENT TRACKING ON OPTIN ; CLIENT TRACKING OFF ; CLIENT TRACKING ON OPTIN ; CLIENT TRACKING ON OPTOUT
== RESP2 without REDIRECT
a: CLIENT TRACKING ON ; GET %k
b: SET %k 1
a: PING
== REDIRECT
s: SUBSCRIBE __redis__:invalidate
a: CLIENT TRACKING ON REDIRECT {s} ; GET %k
b: SET %k 1
a: GET %k ; SET %k 2
a: CLIENT TRACKING OFF
== REDIRECT to RESP3
c3: PING
a: CLIENT TRACKING ON REDIRECT {c3} ; GET %k
b: SET %k 1
== REDIRECT BCAST
s: SUBSCRIBE __redis__:invalidate
a: CLIENT TRACKING ON REDIRECT {s} BCAST PREFIX %
b: SET %k 1
== GETREDIR and TRACKINGINFO
s: SUBSCRIBE __redis__:invalidate
a: CLIENT GETREDIR ; CLIENT TRACKINGINFO ; CLIENT TRACKING ON REDIRECT {s} ; CLIENT GETREDIR ; CLIENT TRACKINGINFO
c3: CLIENT TRACKING ON BCAST PREFIX %z NOLOOP ; CLIENT GETREDIR ; CLIENT TRACKINGINFO
== the redirected client leaves
s: SUBSCRIBE __redis__:invalidate
c3: CLIENT TRACKING ON REDIRECT {s} ; GET %k
s close
b: SET %k 1
c3: CLIENT TRACKINGINFO
== FLUSHDB
c3: SELECT 7 ; CLIENT TRACKING ON ; GET %k
b: SELECT 7 ; FLUSHDB
== blocking while tracking
c3: CLIENT TRACKING ON ; GET %k ; BLPOP %q 0
b: SET %k 1
b: RPUSH %q x
== transactions while tracking
c3: CLIENT TRACKING ON ; MULTI ; GET %k ; SET %l x ; EXEC
b: SET %k 1
b: MULTI ; SET %k 2 ; EXEC
c3: GET %k
b: MULTI ; SET %k 3 ; SET %k 4 ; EXEC
== scripts while tracking
c3: CLIENT TRACKING ON ; EVAL return(redis.call('GET',KEYS[1])) 1 %k
b: EVAL return(redis.call('SET',KEYS[1],'x')) 1 %k
== RESET while tracking
c3: CLIENT TRACKING ON ; GET %k ; RESET
b: SET %k 1
c3: CLIENT TRACKINGINFO ; GET %k
== an expiry
c3: SET %k v PX 100000 ; CLIENT TRACKING ON ; GET %k
b: PEXPIRE %k 0
"""

SESSIONS = r"""
== CLIENT REPLY
a: CLIENT REPLY OFF ; SET %k 1 ; GET %k ; CLIENT REPLY ON ; GET %k
a: CLIENT REPLY SKIP ; GET %k ; GET %k
a: CLIENT REPLY SKIP ; CLIENT REPLY SKIP ; GET %k ; GET %k ; CLIENT REPLY ON
a: CLIENT REPLY OFF ; CLIENT REPLY SKIP ; GET %k
a: GET %k
a: CLIENT REPLY ON
a: CLIENT REPLY ; CLIENT REPLY X ; CLIENT REPLY ON ON
a: CLIENT REPLY OFF
a: NOSUCH
a: CLIENT REPLY ON ; PING
== CLIENT REPLY and waiting
a: CLIENT REPLY OFF ; BLPOP %q 0 ; INCR %k
b: RPUSH %q x
b: GET %k
a: CLIENT REPLY ON
== CLIENT REPLY and blocks
a: CLIENT REPLY SKIP ; MULTI ; INCR %k ; EXEC
a: CLIENT REPLY SKIP
a: GET %k
a: GET %k
a: CLIENT REPLY OFF ; MULTI ; INCR %k ; EXEC ; CLIENT REPLY ON
== CLIENT REPLY and subscriptions
c3: CLIENT REPLY OFF ; SUBSCRIBE %c ; PING
b: PUBLISH %c x
c3: CLIENT REPLY ON ; PING
== CLIENT REPLY SKIP and subscriptions
a: CLIENT REPLY SKIP ; SUBSCRIBE %c %d ; PING
c3: CLIENT REPLY SKIP ; SUBSCRIBE %c ; PING ; CLIENT REPLY SKIP ; UNSUBSCRIBE %c %d ; PING
b: PUBLISH %c x
a: CLIENT REPLY SKIP
a: UNSUBSCRIBE %d %c
a: PING
c3: CLIENT REPLY SKIP ; MULTI ; SUBSCRIBE %c ; EXEC ; PING
== CLIENT REPLY and subscriptions, RESP2
a: CLIENT REPLY OFF ; SUBSCRIBE %c
b: PUBLISH %c x
a: UNSUBSCRIBE
a: CLIENT REPLY ON
== CLIENT PAUSE WRITE
a: SET %k v ; RPUSH %l x ; PFADD %p x ; SCRIPT LOAD return(1)
w: WATCH %k ; MULTI ; SET %k w ; GET %k
e: BLPOP %none 0.03
a: CLIENT PAUSE 5000 WRITE
b: GET %k ; SET %k 1 ; GET %k
c: BLPOP %l 0
d: MULTI ; GET %k ; EXEC ; PING ; EVAL_RO return(1) 0 ; CONFIG GET maxmemory
f: MULTI ; SET %k 2 ; GET %k ; EXEC
g3: PUBLISH %c x
h: PFCOUNT %p
i: SORT %l
j: SUBSCRIBE %c
k: EVAL return(redis.call('INCR',KEYS[1])) 1 %n
m: NOSUCH x ; SELECT 1 ; GET %k ; CLIENT SETNAME me ; CLIENT GETNAME
n: XREAD BLOCK 10 STREAMS %x $
n< 1
o: MULTI
o: DISCARD
w: EXEC
e< 1
a: CLIENT UNBLOCK 0 ; CLIENT KILL ID {i}
i!
a: GET %k
a: CLIENT UNPAUSE
a: GET %k ; GET %n ; LLEN %l
j: UNSUBSCRIBE
== CLIENT PAUSE ALL
a: SET %k v
e: BLPOP %none 0.05
b: CLIENT PAUSE 150 ALL ; GET %k ; SET %k w
a: GET %k
e< 1
== the longer pause
a: CLIENT PAUSE 100 WRITE ; CLIENT PAUSE 5000 WRITE ; CLIENT PAUSE 1 WRITE
b: SET %k 1
c: GET %k
a: CLIENT UNPAUSE
a: CLIENT UNPAUSE ; CLIENT PAUSE 0
== SELECT
a: SET %k zero ; SELECT 1 ; GET %k ; SET %k one ; SELECT 0 ; GET %k ; SELECT 1 ; GET %k ; DEL %k ; SELECT 0
a: SELECT 99 ; GET %k ; SELECT x ; SELECT "" ; SELECT ; SELECT 1 2 ; GET %k
b: SELECT 1 ; EXISTS %k ; SELECT 15 ; SELECT 16 ; SET %k fifteen ; SELECT 0 ; EXISTS %k ; SELECT 15 ; DEL %k
== HELLO
a: HSET %h f v ; HGETALL %h ; HELLO 3 ; HGETALL %h ; HELLO 2 ; HGETALL %h ; HELLO ; HELLO 3 SETNAME me ; CLIENT GETNAME ; HELLO 4 ; HELLO x ; HGETALL %h
a: HELLO 3 AUTH default x ; HELLO 2 SETNAME ; HELLO 2 SETNAME with\x20blank ; HELLO 3 SETNAME a SETNAME b ; CLIENT GETNAME
== HELLO in the middle
a: ZADD %z 1.5 a ; ZSCORE %z a ; ZRANGE %z 0 -1 WITHSCORES
a: HELLO 3 ; ZSCORE %z a ; ZRANGE %z 0 -1 WITHSCORES ; GET %none ; BLPOP %none 0.01 ; MULTI ; GET %none ; EXEC ; SMEMBERS %none ; HELLO 2 ; GET %none
a< 11
== RESET
a: SELECT 1 ; CLIENT SETNAME me ; HELLO 3 ; RESET ; CLIENT GETNAME ; HGETALL %h ; SET %k v ; SELECT 0 ; GET %k ; DEL %k
a: WATCH %k ; RESET ; MULTI ; SET %k 1 ; RESET ; EXEC
a: RESET extra
c3: CLIENT TRACKING ON ; RESET ; GET %k
== RESET and WATCH
a: WATCH %k
b: SET %k 1
a: RESET
a: MULTI ; SET %k 2 ; EXEC
== QUIT
a: SET %k v ; QUIT ; SET %k w
a!
b: GET %k
c: QUIT extra
c!
== names
a: CLIENT SETNAME me ; CLIENT GETNAME
b: CLIENT SETNAME "" ; CLIENT GETNAME
a: WATCH %k ; CLIENT GETNAME ; CLIENT SETNAME other ; UNWATCH ; CLIENT GETNAME
c3: CLIENT GETNAME
== CLIENT KILL
a: PING
b: CLIENT KILL ID {a}
a!
c: CLIENT KILL ID {c}
c: CLIENT KILL ID {c} SKIPME no
c!
== CLIENT KILL by what clients are
a: CLIENT SETNAME %one
b: SELECT 3 ; CLIENT SETNAME %two
c3: SUBSCRIBE %c
d: MULTI
k: CLIENT KILL ID {a} TYPE pubsub ; CLIENT KILL ID {b} USER default TYPE normal SKIPME yes ; CLIENT KILL ID {k}
b!
a: PING
k: CLIENT KILL ID {c3} TYPE pubsub
c3!
k: CLIENT KILL ID {a} ADDR 1.2.3.4:5 ; CLIENT KILL ID {k} SKIPME no
k!
a: PING
== CLIENT KILL by age >= 7.4
a: CLIENT KILL ID {a} MAXAGE 1000 SKIPME no ; PING
== CLIENT KILL of Valkey >= 9.0
a: CLIENT SETNAME %one
b: SELECT 3 ; CLIENT SETNAME %two
c3: SUBSCRIBE %c
d: MULTI
e: CLIENT SETINFO LIB-NAME %lib ; CLIENT SETINFO LIB-VER 7
f: BLPOP %none 0
k: CLIENT KILL NAME %one DB 3 ; CLIENT KILL NAME %two NOT-DB 3 ; CLIENT KILL ID {a} {b} {c3} {d} {e} {f} NOT-ID {a} {b} {c3} {d} {e} {f}
k: CLIENT KILL ID {a} {b} {d} {e} {f} FLAGS P ; CLIENT KILL ID {c3} NOT-FLAGS P ; CLIENT KILL ID {e} LIB-NAME %lib LIB-VER 8 ; CLIENT KILL ID {a} CAPA r
k: CLIENT KILL NAME %one NAME %two DB 3
b!
a: PING
k: CLIENT KILL ID {a} {d} {f} FLAGS x
d!
k: CLIENT KILL ID {a} {f} FLAGS b
f!
k: CLIENT KILL ID {e} {a} LIB-NAME %lib LIB-VER 7 IP 127.0.0.1
e!
k: CLIENT KILL ID {a} NOT-LIB-NAME %lib NOT-NAME x NOT-DB 3 NOT-FLAGS x NOT-TYPE pubsub NOT-CAPA r NOT-ADDR x
a!
k: CLIENT KILL ID {c3} ID {k} SKIPME no
c3!
k!
== CLIENT KILL of a subscriber
a: SUBSCRIBE %c
b: CLIENT KILL ID {a}
a!
b: PUBLISH %c x
== CLIENT KILL in MULTI
a: MULTI ; SET %k v
b: CLIENT KILL ID {a}
a!
b: GET %k
== inline commands
a raw: PING\r\n
a raw: SET %k "a b"\r\nGET %k\r\n
a raw: \r\n\r\nECHO 'x\\'y'\r\n
a raw: get %k\n
a raw: ECHO "\\x41\\n\\t"\r\n
a raw:    PING   hi  \r\n
a raw: NOSUCH a b\r\n
a raw: MULTI\r\nINCR %n\r\nEXEC\r\n
== inline and multibulk
a raw: PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n
a raw: *0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n
a raw: *2\r\n$4\r\nECHO\r\n$3\r\nab
a raw: c\r\n
== in small pieces
a raw: *2\r
a raw: \n$4\r\nEC
a raw: HO\r\n$
a raw: 1
a raw: 1\r\nhello
a raw:  world\r
a raw: \n
== a bulk without its end
a raw: *2\r\n$4\r\nECHO\r\n$2\r\nabXX
a!
== unbalanced quotes
a raw: ECHO "x\r\n
a!
== bad bulk
a raw: *1\r\n!4\r\nPING\r\n
a!
== bad count
a raw: *x\r\nPING\r\n
a!
== negative bulk
a raw: *2\r\n$4\r\nECHO\r\n$-1\r\n
a!
== broken behind good ones
a raw: *1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$x\r\n
a!
== a browser
a raw: POST / HTTP/1.1\r\nHost: x\r\n\r\n
a!
== a browser's header
a raw: Host: x\r\n\r\n
a!
== names that are not
a: "" ; "" x ; NOSUCH ; get ; GeT %k ; nosuch\r\n ; \x00\xff
== everything in one write
a: SET %k v ; GET %k ; SUBSCRIBE %c ; PING ; UNSUBSCRIBE ; GET %k ; MULTI ; INCR %n ; EXEC ; BLPOP %q 0.01 ; CLIENT REPLY SKIP ; SET %k w ; GET %k ; HELLO 3 ; HSET %h f v ; HGETALL %h ; SELECT 1 ; GET %k ; SELECT 0 ; GET %k ; WATCH %k ; MULTI ; SET %k x ; EXEC ; GET %k ; HELLO 2 ; HGETALL %h ; RPUSH %q x ; BLPOP %q 0 ; EVAL return(1) 0 ; CLIENT SETNAME me ; CLIENT GETNAME ; RESET ; CLIENT GETNAME ; NOSUCH ; CONFIG GET maxmemory ; TYPE %k ; QUIT
a< 36
a!
== everything in one write, RESP3
c3: SET %k v ; GET %k ; SUBSCRIBE %c ; PUBLISH %c x ; GET %k ; MULTI ; INCR %n ; EXEC ; BLPOP %q 0.01 ; UNSUBSCRIBE ; CLIENT TRACKING ON ; GET %k ; SET %k w ; GET %k ; CLIENT TRACKING OFF ; SELECT 1 ; GET %k ; SELECT 0 ; HGETALL %none ; GET %k
c3< 21
== administration pins
a: CONFIG GET maxmemory ; SET %k v ; GET %k ; ACL WHOAMI ; INCR %n ; SELECT 1 ; CONFIG GET maxmemory ; SET %k one ; SELECT 0 ; GET %k ; SELECT 1 ; DEL %k
== scripts known to all
a: SCRIPT LOAD return(41)
b: EVALSHA 54a7b1a1ba5ddf45bff5b0a4b2b1d2b3a6e0f4f5 0 ; SCRIPT EXISTS 54a7b1a1ba5ddf45bff5b0a4b2b1d2b3a6e0f4f5
== a null and its kin, RESP3
c3: GET %none ; LPOP %none ; LPOP %none 2 ; SPOP %none ; SPOP %none 2 ; ZSCORE %none m ; HMGET %none a b ; BLPOP %none 0.01 ; GEOPOS %none m ; SET %k v XX ; OBJECT ENCODING %none
c3< 11
"""

ALL = {"transactions": TRANSACTIONS, "blocking": BLOCKING, "pubsub": PUBSUB, "tracking": TRACKING, "sessions": SESSIONS}
