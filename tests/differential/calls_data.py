"""The corpus for commands on keys. A pure table; tests.differential.corpus has the language.

Deadlines lie in 2100 or in the past, so that two runs agree; relative ones are compared within a second.
"""

STRINGS = r"""
APPEND [@s|@0|@n|@e|@b] [x|""|\x00\xff] ; GET @s
BITCOUNT [@b|@s|@0] [|0 -1|1 1|0 0|-2 -1|5 2]
BITCOUNT @b [0 -1 BYTE|5 30 BIT|0 0 BIT|0 1 bit|0 -1 WORD]
BITFIELD [@b|@0] [GET u8 0|GET i4 #1|SET u8 0 255|INCRBY i5 100 1|GET u63 0|GET u64 0|SET i64 0 -1|GET u8 -1]
BITFIELD [@b|@n] OVERFLOW [WRAP|SAT|FAIL] INCRBY u2 0 3 [SET i4 3 7|GET u8 8|INCRBY u8 0 250]
BITFIELD @b ; BITFIELD @0
BITFIELD_RO [@b|@0] [GET u8 0|GET i4 #1 GET u2 3|SET u8 0 1|]
BITOP [AND|OR|XOR|NOT] @b2 @b ; GET @b2
BITOP [AND|OR|XOR|NOT|DIFF|DIFF1|ANDOR|ONE|and] @0 @b @s ; GET @0
BITOP [AND|OR|XOR|DIFF|DIFF1|ANDOR|ONE] @s2 @b @s @0 ; STRLEN @s2
BITPOS [@b|@s|@0] [0|1|2] [|0|1 -1|0 -1 BYTE|4 12 BIT]
DECR [@n|@0|@s|@e|@f] ; GET @n
DECRBY [@n|@0|@s] [3|-3|0|9223372036854775807|-9223372036854775808]
DELIFEQ [@s|@0] [hello|other] ; EXISTS @s
GET [@s|@n|@0|@b|@e]
GETBIT [@b|@0|@s] [0|7|8|100|4294967295|4294967296]
GETDEL [@s|@0|@e|@b] ; EXISTS @s
GETEX [@s|@e|@0] [|EX 100|PX 100000|EXAT 4102444800|PXAT 4102444800000|PERSIST|EXAT 1000|EX 0|PX -1] ; TTL @s ; TTL @e
GETEX @s [EX 100 PERSIST|EX 100 PX 100|EX|ex 100|NX] ; GETEX @s ; TTL @s
GETRANGE [@s|@b|@0] [0 -1|1 2|-3 -1|5 1|0 100|-100 100|3 -10]
GETSET [@s|@0|@e|@n] new ; TTL @e
INCR [@n|@0|@s|@e|@f|@b] ; GET @n
INCRBY [@n|@0|@s] [5|-5|0|9223372036854775807|-9223372036854775808|1.5]
INCRBYFLOAT [@f|@n|@0|@s] [0.1|-1.5|3e2|1e-5|inf|nan|-0|5.0e3|0.30000000000000004] ; GET @f
LCS @s @s2 [|LEN|IDX|IDX MINMATCHLEN 2|IDX WITHMATCHLEN|IDX MINMATCHLEN 3 WITHMATCHLEN|LEN IDX]
LCS [@s @0|@0 @02|@n @s]
MGET @s [@0|@l|@s @n @s] @n
MSET [@s v|@0 v|@l v|@s v @0 w @l x|@s a @s b] ; MGET @s @0 @l
MSETEX [1 @s v|2 @s v @0 w] [NX|XX|] [EX 100|PX 100000|EXAT 4102444800|PXAT 4102444800000|KEEPTTL|] ; MGET @s @0
MSETEX [1 @e v KEEPTTL|0 @s v|2 @s v|1 @0 v EXAT 1000] ; TTL @e
MSETNX [@s v @0 w|@0 v @02 w|@0 a @0 b] ; MGET @s @0 @02
PSETEX [@s|@0|@l] [100000|0|-1|9223372036854775807] v ; TTL @s
SET [@s|@0|@l|@e] v [NX|XX|] [GET|] ; GET @s ; TYPE @l ; TTL @e
SET [@s|@e] v [EX 100|PX 100000|EXAT 4102444800|PXAT 4102444800000|KEEPTTL|EXAT 1000|PXAT 1] [GET|] ; TTL @s ; TTL @e
SET [@s|@e] v [NX|XX|] [EX 100|KEEPTTL] [GET|] ; GET @s
SET [@s|@n|@0] v IFEQ [hello|other] [GET|] [EX 100|] ; GET @s
SET @s v [NX XX|EX 100 PX 100|EX 100 KEEPTTL|EX 0|PX -5|EX|NX NX|ex 100 nx get|GET GET|IFEQ hello NX]
SETBIT [@b|@0|@s] [0|7|100|4294967295000|-1] [0|1|2] ; GET @b
SETEX [@s|@0|@l] [100|0|-1|9223372036854775807] v ; TTL @s
SETNX [@s|@0|@l] v ; GET @0
SETRANGE [@s|@0|@n|@e] [0|3|9|536870912|-1] [v|""] ; GET @s ; EXISTS @0
STRALGO LCS [STRINGS hello hallo|KEYS @s @s2] [|LEN|IDX|IDX MINMATCHLEN 2|IDX WITHMATCHLEN]
STRLEN [@s|@0|@n|@b]
SUBSTR [@s|@0] [0 -1|1 2|-3 -1]
PFADD [@p|@0] [a|d|a b c d e|] ; PFCOUNT @p ; PFADD @s x
PFCOUNT [@p|@0|@p @p2|@p @0|@s]
PFMERGE [@p @p2|@0 @p|@0|@0 @02|@p @s] ; PFCOUNT @p
PFDEBUG [GETREG|DECODE|ENCODING|TODENSE|NOPE] [@p|@0|@s]
SETBIT @0 8388607 1 ; STRLEN @0
"""

KEYS = r"""
COPY [@s|@l|@t|@u|@z|@h|@x|@e|@g] @0 [REPLACE|] ; TYPE @0 ; TTL @0
COPY @s [@l|@s2] [REPLACE|] ; GET @s ; TYPE @l
COPY @s @0 [DB 0|DB 1|DB 99|DB x] [REPLACE|]
COPY [@s @s|@0 @02]
DEL [@s|@0|@s @s|@s @l @0 @z|@x|@e] ; EXISTS @s
~DUMP [@s|@l|@u|@h|@x|@z]
DUMP [@0|@n|@t|@e]
EXISTS [@s|@0|@s @s|@s @l @0]
EXPIRE [@s|@e|@0|@x] [100|0|-1] [NX|XX|GT|LT|] ; TTL @s ; EXISTS @e
EXPIRE @s [9223372036854775807|-9223372036854775808|100 NX XX|100 GT LT|100 YY|1.5]
EXPIREAT [@s|@e|@0] [4102444800|4102444900|1000|0] [NX|XX|GT|LT|] ; TTL @s ; EXISTS @e
EXPIRETIME [@e|@s|@0]
MOVE [@s|@0|@e] [1|0|99|x|-1] ; EXISTS @s
OBJECT ENCODING [@s|@n|@0|@l|@t|@u|@z|@h|@x|@b|@e]
OBJECT [FREQ|IDLETIME|REFCOUNT] [@s|@0|@n|@l]
OBJECT HELP
PERSIST [@e|@s|@0] ; TTL @e
PEXPIRE [@s|@e|@0] [100000|0|-1] [NX|XX|GT|LT|] ; TTL @s ; EXISTS @e
PEXPIREAT [@s|@e|@0] [4102444800000|4102444900000|1000|0|-1] [NX|XX|GT|LT|] ; TTL @s ; EXISTS @e
PEXPIRETIME [@e|@s|@0]
PTTL [@e|@s|@0]
TTL [@e|@s|@0]
RENAME [@s @0|@s @l|@s @s|@0 @02|@e @s] ; EXISTS @s @0 @l ; TTL @s
RENAMENX [@s @0|@s @l|@s @s|@0 @02|@e @0] ; EXISTS @s @0 @l ; TTL @0
RESTORE @0 [0|100000|-1|x] \x00\x05hello\x09\x00\xb3\x80\x8e\xba\x31\xb2\xc4\xe5 [|REPLACE|ABSTTL|IDLETIME 10|FREQ 5]
RESTORE [@0|@s] 0 bad [|REPLACE]
RESTORE [@0|@s] 4102444800000 \x00\xc0\x0a\x09\x00\xbe\x6d\x06\x89\x5a\x28\x00\x0a [|REPLACE] [ABSTTL|] ; GET @0 ; GET @s
RESTORE [@0|@s] 1000 \x00\xc0\x0a\x09\x00\xbe\x6d\x06\x89\x5a\x28\x00\x0a [|REPLACE] ABSTTL [IDLETIME 5|FREQ 5|IDLETIME 5 FREQ 5|]
RESTORE-ASKING [@0|@s] 0 \x00\xc0\x0a\x09\x00\xbe\x6d\x06\x89\x5a\x28\x00\x0a [|REPLACE|ABSTTL|IDLETIME 10|FREQ 5]
SORT [@m|@t|@l|@0|@z|@s] [ASC|DESC|] [ALPHA|] [LIMIT 0 2|LIMIT 1 -1|] [STORE @0|]
SORT [@m|@t] [BY nosort|BY no*|BY nosuch_*->f|] [GET #|GET nosuch_* GET #|] [STORE @02|] ; LRANGE @02 0 -1
SORT @m [STORE @m|STORE @s|LIMIT x y|BY] ; TYPE @s ; LRANGE @m 0 -1
SORT @m BY w_* GET # GET nosuch_*->f LIMIT 0 2 ASC ALPHA STORE @0
SORT_RO [@m|@t|@l|@0] [ASC|DESC|] [ALPHA|] [LIMIT 0 2|] [BY nosort|] [GET #|]
SORT_RO @m STORE @0
TOUCH [@s|@0|@s @l @0]
TYPE [@s|@l|@t|@u|@z|@h|@x|@0|@g|@p]
UNLINK [@s|@0|@s @s|@s @l @0 @z|@x] ; EXISTS @s
MEMORY USAGE [@s|@0|@l|@n] [|SAMPLES 5|SAMPLES 0|SAMPLES -1]
"""

LISTS = r"""
BLMOVE @l @l2 [LEFT|RIGHT] [LEFT|RIGHT] 0.01 ; LRANGE @l2 0 -1
BLMOVE [@0|@s|@l] [@s2|@l2|@0] LEFT RIGHT 0.01
BLMOVE @l @l2 [LEFT UP|left right] 0.01
BLMPOP 0.01 [1 @l|2 @0 @l|1 @0|2 @s @l] [LEFT|RIGHT] [|COUNT 2|COUNT 100|COUNT 0] ; LRANGE @l 0 -1
BLPOP [@l|@0|@0 @l|@s @l|@l @l2] 0.01 ; LRANGE @l 0 -1
BRPOP [@l|@0|@0 @l|@s @l|@l @l2] 0.01 ; LRANGE @l 0 -1
BRPOPLPUSH [@l @l2|@l @0|@0 @l|@l @s|@s @l|@l @l] 0.01 ; LRANGE @l 0 -1
LINDEX [@l|@0] [0|-1|2|99|-99]
LINSERT [@l|@0] [BEFORE|AFTER|before|X] [a|b|nosuch] new ; LRANGE @l 0 -1
LLEN [@l|@0|@m]
LMOVE @l [@l2|@0|@l|@s] [LEFT|RIGHT|left] [LEFT|RIGHT] ; LRANGE @l 0 -1
LMOVE @0 @l LEFT RIGHT
LMPOP [1 @l|2 @0 @l|1 @0|2 @s @l|0 @l|3 @l @l2] [LEFT|RIGHT|UP] [|COUNT 2|COUNT 100|COUNT 0|COUNT x] ; LRANGE @l 0 -1
LPOP [@l|@0] [|0|1|2|99|-1] ; LRANGE @l 0 -1
LPOS [@l|@0] [a|b|nosuch] [|RANK 2|RANK -1|RANK 0|COUNT 0|COUNT 2|MAXLEN 2|RANK -1 COUNT 0 MAXLEN 3|COUNT -1|MAXLEN -1]
LPUSH [@l|@0] [x|x y z|""] ; LRANGE @l 0 -1
LPUSHX [@l|@0] [x|x y z] ; LRANGE @l 0 -1
LRANGE [@l|@0] [0 -1|1 2|-2 -1|5 1|0 0|-100 100]
LREM [@l|@0] [0|1|-1|5|-5] [a|b|nosuch] ; LRANGE @l 0 -1
LSET [@l|@0] [0|-1|99|-99] new ; LRANGE @l 0 -1
LTRIM [@l|@0] [0 -1|1 2|-2 -1|5 1|0 0] ; LRANGE @l 0 -1
RPOP [@l|@0] [|0|1|2|99|-1] ; LRANGE @l 0 -1
RPOPLPUSH [@l @l2|@l @0|@0 @l|@l @s|@s @l|@l @l] ; LRANGE @l 0 -1
RPUSH [@l|@0] [x|x y z|""|\r\n\x00] ; LRANGE @l 0 -1
RPUSHX [@l|@0] [x|x y z] ; LRANGE @l 0 -1
"""

SETS = r"""
SADD [@t|@u|@0] [4|a|a b c d|1 1 1|x y] ; SCARD @t ; SCARD @u
SCARD [@t|@u|@0]
SDIFF [@t|@t @t2|@t @0|@0 @t|@t @u|@t @s]
SDIFFSTORE [@0|@t3|@s|@l] [@t|@t @t2|@t @0|@0 @02|@u @t] ; TYPE @s ; EXISTS @0
SINTER [@t|@t @t2|@t @0|@0 @t|@t @u|@t @s]
SINTERCARD [1 @t|2 @t @t2|2 @t @0|0 @t|3 @t @t2] [|LIMIT 2|LIMIT 0|LIMIT -1|LIMIT]
SINTERSTORE [@0|@t3|@s|@l] [@t|@t @t2|@t @0|@0 @02|@u @t] ; TYPE @s ; EXISTS @0
SISMEMBER [@t|@u|@0] [1|a|nosuch]
SMEMBERS [@t|@u|@0]
SMISMEMBER [@t|@u|@0] [1|1 a|a nosuch c]
SMOVE [@u|@0|@s] [@u2|@02|@u|@l] [a|nosuch] ; SCARD @u ; SCARD @u2
SPOP [@0|@t 0|@t 3|@t 99|@u 3|@t -1|@0 0|@0 5] ; EXISTS @t
~SPOP [@t|@u] [|1|2] ; SCARD @t ; SCARD @u
~SRANDMEMBER [@t|@u|@0] [|1|2|-5]
SRANDMEMBER [@t 3|@t 99|@0 2|@t 0|@u 3]
SREM [@t|@u|@0] [1|a|a b c|1 2 3|nosuch] ; EXISTS @t @u
SSCAN [@t|@u|@0] 0 [|MATCH *|MATCH x*|COUNT 1|COUNT 100|MATCH 1 COUNT 5|COUNT 0]
SUNION [@t|@t @t2|@t @0|@0 @t|@0 @02|@t @u|@t @s]
SUNIONSTORE [@0|@t3|@s|@l] [@t|@t @t2|@t @0|@0 @02|@u @t] ; TYPE @s ; EXISTS @0
"""

ZSETS = r"""
BZMPOP 0.01 [1 @z|2 @0 @z|1 @0|2 @s @z] [MIN|MAX] [|COUNT 2|COUNT 100|COUNT 0] ; ZCARD @z
BZPOPMAX [@z|@0|@0 @z|@s @z] 0.01 ; ZCARD @z
BZPOPMIN [@z|@0|@0 @z|@s @z] 0.01 ; ZCARD @z
ZADD [@z|@0] [NX|XX|] [GT|LT|] [CH|] [1 a|5 a|0.5 b|5 d] ; ZRANGE @z 0 -1 WITHSCORES
ZADD [@z|@0] [NX|XX|] [GT|LT|] INCR [1 a|-5 a|5 d|inf a] ; ZRANGE @z 0 -1 WITHSCORES
ZADD @z [inf a|-inf a|nan a|1e400 a|0.1 a 0.2 b|3.3333333333333335 a|1e20 a|-0 a|1 a 2 a|NX XX 1 a|INCR 1 a 2 b|GT LT 1 a] ; ZSCORE @z a
ZCARD [@z|@0]
ZCOUNT [@z|@0] [-inf +inf|1 2|(1 2|1 (3|5 1|a b]
ZDIFF [1 @z|2 @z @z2|2 @z @0|2 @z @u|0 @z|1 @s] [|WITHSCORES]
ZDIFFSTORE [@0|@z3|@s] [1 @z|2 @z @z2|2 @z @0|2 @z @u|0 @z] ; TYPE @s ; ZRANGE @0 0 -1 WITHSCORES
ZINCRBY [@z|@0] [1|-1.5|inf|0|1e308] [a|new] ; ZRANGE @z 0 -1 WITHSCORES
ZINTER [1 @z|2 @z @z2|2 @z @0|2 @z @u] [|WEIGHTS 2 3|WEIGHTS 2] [|AGGREGATE SUM|AGGREGATE MIN|AGGREGATE MAX|AGGREGATE X] [WITHSCORES|]
ZINTERCARD [1 @z|2 @z @z2|2 @z @0|0 @z] [|LIMIT 2|LIMIT 0|LIMIT -1]
ZINTERSTORE [@0|@z3|@s] [2 @z @z2|2 @z @0|2 @z @u] [|WEIGHTS 2 3] [|AGGREGATE SUM|AGGREGATE MIN|AGGREGATE MAX] ; ZRANGE @0 0 -1 WITHSCORES
ZLEXCOUNT [@y|@0] [- +|\x5ba \x5bc|(a (c|+ -|a c]
ZMPOP [1 @z|2 @0 @z|1 @0|2 @s @z|0 @z] [MIN|MAX|UP] [|COUNT 2|COUNT 100|COUNT 0] ; ZCARD @z
ZMSCORE [@z|@0] [a|a nosuch b]
ZPOPMAX [@z|@0] [|0|1|2|99|-1] ; ZCARD @z
ZPOPMIN [@z|@0] [|0|1|2|99|-1] ; ZCARD @z
~ZRANDMEMBER [@z|@0] [|1|2|-5|2 WITHSCORES|-5 WITHSCORES]
ZRANDMEMBER [@0|@0 2|@z 0|@0 2 WITHSCORES]
ZRANGE [@z|@0|@y] [0 -1|1 2|-2 -1|5 1] [|REV] [|WITHSCORES]
ZRANGE [@z|@0] [1 2|(1 3|-inf +inf|3 1|+inf -inf] BYSCORE [|REV] [|LIMIT 0 2|LIMIT 1 -1] [|WITHSCORES]
ZRANGE [@y|@0] [- +|\x5ba \x5bc|(a (c|+ -|(c \x5ba] BYLEX [|REV] [|LIMIT 0 2|LIMIT 1 -1] [|WITHSCORES]
ZRANGE @z 0 -1 [LIMIT 0 1|BYSCORE BYLEX|NOSUCH|withscores]
ZRANGEBYLEX [@y|@0] [- +|\x5ba \x5bc|(a (c|+ -|a c] [|LIMIT 0 2|LIMIT 1 -1|LIMIT x y]
ZRANGEBYSCORE [@z|@0] [-inf +inf|1 2|(1 2|1 (3|5 1|a b] [|LIMIT 0 2|LIMIT 1 -1] [|WITHSCORES]
ZRANGESTORE [@0|@s|@z2] @z [0 -1|1 2|5 1] [|REV] ; ZRANGE @0 0 -1 WITHSCORES ; TYPE @s
ZRANGESTORE @0 @z [1 2 BYSCORE|(3 1 BYSCORE REV|-inf +inf BYSCORE LIMIT 1 1] ; ZRANGE @0 0 -1 WITHSCORES
ZRANGESTORE @0 [@y|@02] [- + BYLEX|+ - BYLEX REV|- + BYLEX LIMIT 1 2] ; ZRANGE @0 0 -1
ZRANK [@z|@0] [a|c|nosuch] [|WITHSCORE]
ZREM [@z|@0] [a|a b c|nosuch|a a] ; EXISTS @z
ZREMRANGEBYLEX [@y|@0] [- +|\x5ba \x5bc|(a (c|+ -|a c] ; EXISTS @y
ZREMRANGEBYRANK [@z|@0] [0 -1|0 0|1 2|5 1] ; EXISTS @z
ZREMRANGEBYSCORE [@z|@0] [-inf +inf|1 2|(1 2|5 1|a b] ; EXISTS @z
ZREVRANGE [@z|@0] [0 -1|1 2|5 1] [|WITHSCORES]
ZREVRANGEBYLEX [@y|@0] [+ -|\x5bc \x5ba|(c (a|- +] [|LIMIT 0 2]
ZREVRANGEBYSCORE [@z|@0] [+inf -inf|2 1|2 (1|1 5] [|LIMIT 0 2] [|WITHSCORES]
ZREVRANK [@z|@0] [a|c|nosuch] [|WITHSCORE]
ZSCAN [@z|@0] 0 [|MATCH *|MATCH x*|COUNT 1|MATCH a COUNT 5|NOSCORES]
ZSCORE [@z|@0] [a|nosuch]
ZUNION [1 @z|2 @z @z2|2 @z @0|2 @z @u] [|WEIGHTS 2 3|WEIGHTS 2] [|AGGREGATE SUM|AGGREGATE MIN|AGGREGATE MAX] [WITHSCORES|]
ZUNIONSTORE [@0|@z3|@s] [2 @z @z2|2 @z @0|2 @z @u] [|WEIGHTS 2 3|WEIGHTS 0.1 inf] [|AGGREGATE SUM|AGGREGATE MIN|AGGREGATE MAX] ; ZRANGE @0 0 -1 WITHSCORES
"""

GEO = r"""
GEOADD [@g|@0] [NX|XX|] [CH|] [13.361389 38.115556 Palermo|15 37 Palermo|2 48 Paris|2 48 Paris 12.5 41.9 Rome] ; ZCARD @g
GEOADD @g [NX XX 1 1 a|181 1 a|1 86 a|x 1 a|1 1]
GEODIST [@g|@0] Palermo [Catania|nosuch|Palermo] [|m|km|ft|mi|M|KM|FT|MI|yd]
GEOHASH [@g|@0] [|Palermo|Palermo nosuch Catania]
GEOPOS [@g|@0] [|Palermo|Palermo nosuch Catania]
GEORADIUS [@g|@0] 15 37 200 [km|m|ft|mi|M|KM|FT|MI] [WITHCOORD|] [WITHDIST|] [WITHHASH|] [COUNT 1|COUNT 1 ANY|] [ASC|DESC|]
GEORADIUS @g 15 37 200 km [STORE @0|STOREDIST @0|STORE @0 STOREDIST @02|COUNT 1 STORE @0|STORE @0 WITHDIST|STORE @s] ; ZRANGE @0 0 -1 WITHSCORES
GEORADIUS @g [200 37 200 km|15 37 -1 km|15 37 200 yd|15 37 200 km COUNT 0|15 37 200 km ANY]
GEORADIUS_RO [@g|@0] 15 37 200 [km|m|ft|mi] [WITHCOORD|] [WITHDIST|] [WITHHASH|] [COUNT 1|COUNT 1 ANY|] [ASC|DESC|]
GEORADIUS_RO @g 15 37 200 km STORE @0
GEORADIUSBYMEMBER [@g|@0] Palermo 200 [km|m|ft|mi] [WITHCOORD|] [WITHDIST|] [WITHHASH|] [COUNT 1|COUNT 1 ANY|] [ASC|DESC|]
GEORADIUSBYMEMBER @g [Palermo|nosuch] 200 km [STORE @0|STOREDIST @0|STORE @s] ; ZRANGE @0 0 -1 WITHSCORES
GEORADIUSBYMEMBER_RO [@g|@0] Palermo 200 [km|m|ft|mi] [WITHCOORD|] [WITHDIST|] [WITHHASH|] [COUNT 1|COUNT 1 ANY|] [ASC|DESC|]
GEOSEARCH [@g|@0] [FROMMEMBER Palermo|FROMLONLAT 15 37|FROMMEMBER nosuch] [BYRADIUS 200 km|BYBOX 400 400 km|BYRADIUS 100 mi|BYBOX 1 1 ft|BYRADIUS 9 m] [ASC|DESC|] [COUNT 1|COUNT 1 ANY|] [WITHCOORD|] [WITHDIST|] [WITHHASH|]
GEOSEARCH @g [BYRADIUS 200 km|FROMLONLAT 15 37|FROMLONLAT 15 37 BYRADIUS 1 km BYBOX 1 1 km|FROMMEMBER Palermo FROMLONLAT 1 1 BYRADIUS 1 km]
GEOSEARCH @g BYPOLYGON 4 12 37 12 39 16 39 16 37 [ASC|WITHDIST|]
GEOSEARCHSTORE [@0|@s|@g2] @g [FROMMEMBER Palermo|FROMLONLAT 15 37] [BYRADIUS 200 km|BYBOX 400 400 km|BYRADIUS 9 m|BYRADIUS 5 ft|BYBOX 9 9 mi] [ASC|DESC|] [COUNT 1|COUNT 1 ANY|] [STOREDIST|] ; ZRANGE @0 0 -1 WITHSCORES
GEOSEARCHSTORE @0 @g [BYPOLYGON 4 12 37 12 39 16 39 16 37|FROMLONLAT 15 37 BYRADIUS 1 km WITHDIST]
"""

HASHES = r"""
HDEL [@h|@0] [f|f g h|nosuch|f f] ; EXISTS @h
HEXISTS [@h|@0] [f|nosuch]
HGET [@h|@0] [f|nosuch|h]
HGETALL [@h|@0]
HINCRBY [@h|@0] [g 5|g -5|f 1|new 3|g 9223372036854775807|h 1] ; HGETALL @h
HINCRBYFLOAT [@h|@0] [h 0.1|g 1.5|f 1|new 3e2|h inf|h nan|h -0] ; HGETALL @h
HKEYS [@h|@0]
HLEN [@h|@0]
HMGET [@h|@0] [f|f nosuch g]
HMSET [@h|@0] [f new|x 1 y 2|f a f b] ; HGETALL @h
~HRANDFIELD [@h|@0] [|1|2|-5|2 WITHVALUES|-5 WITHVALUES]
HRANDFIELD [@0|@0 2|@h 0|@0 2 WITHVALUES]
HSCAN [@h|@0] 0 [|MATCH *|MATCH x*|COUNT 1|MATCH f COUNT 5|NOVALUES]
HSET [@h|@0] [f new|x 1 y 2|f a f b|"" ""|\x00 \r\n] ; HGETALL @h
HSETNX [@h|@0] [f|new] v ; HGETALL @h
HSTRLEN [@h|@0] [f|nosuch|h]
HVALS [@h|@0]
HEXPIRE [@h|@k|@0] [100|0|-1] [NX|XX|GT|LT|] FIELDS [1 f|2 f g|2 nosuch f|1 h] ; HTTL @h FIELDS 1 f ; HLEN @k
HEXPIREAT [@h|@k|@0] [4102444800|4102444900|1000] [NX|XX|GT|LT|] FIELDS [1 f|2 f g|2 nosuch f] ; HGETALL @k
HEXPIRETIME [@h|@k|@0] FIELDS [1 f|3 f h nosuch|0|2 f]
HGETDEL [@h|@k|@0] FIELDS [1 f|3 f g h|2 f nosuch|0 f] ; HGETALL @h
HGETEX [@h|@k|@0] [EX 100|PX 100000|EXAT 4102444800|PXAT 4102444800000|PERSIST||EXAT 1000|EX 0] FIELDS [1 f|2 f nosuch|3 f g h] ; HGETALL @h ; HTTL @k FIELDS 2 f g
HPERSIST [@h|@k|@0] FIELDS [1 f|3 f h nosuch] ; HTTL @k FIELDS 2 f g
HPEXPIRE [@h|@k|@0] [100000|0|-1] [NX|XX|GT|LT|] FIELDS [1 f|2 f g|2 nosuch f] ; HTTL @h FIELDS 1 f
HPEXPIREAT [@h|@k|@0] [4102444800000|4102444900000|1000] [NX|XX|GT|LT|] FIELDS [1 f|2 f g|2 nosuch f] ; HGETALL @k
HPEXPIRETIME [@h|@k|@0] FIELDS [1 f|3 f h nosuch]
HPTTL [@h|@k|@0] FIELDS [1 f|3 f h nosuch]
HTTL [@h|@k|@0] FIELDS [1 f|3 f h nosuch|0 f]
HSETEX [@h|@k|@0] [FNX|FXX|] [EX 100|PX 100000|EXAT 4102444800|PXAT 4102444800000|KEEPTTL|] FIELDS [1 f new|2 f new x y|1 x y] ; HGETALL @h ; HTTL @k FIELDS 2 f g
HSETEX [@h|@0|@k] [NX|XX|] EXAT 1000 FIELDS 1 f new ; HGETALL @h
"""

STREAMS = r"""
XACK [@x|@0] [g1|g2|nosuch] [1-1|1-1 2-1|9-9|1|x] ; XPENDING @x g1
XACKDEL [@x|@0] [g1|nosuch] [KEEPREF|DELREF|ACKED|] IDS [1 1-1|2 1-1 9-9|0|1 x] ; XLEN @x ; XPENDING @x g1
XADD [@w|@0] [NOMKSTREAM|] [4-1|5-*|3-*|5|1-1|0-0|0-1] [f v|f v g w|f] ; XLEN @w
XADD [@w|@x] [MAXLEN 2|MAXLEN = 2|MAXLEN 0|MINID 2-1|MINID = 3|MAXLEN -1|MINID x] 9-1 f v ; XRANGE @w - +
~XADD [@w|@0] [MAXLEN ~ 1|MINID ~ 2|MAXLEN ~ 1 LIMIT 5|MINID ~ 2 LIMIT 5|MAXLEN = 2 LIMIT 5|NOMKSTREAM] [9-1|*] f v
~XADD [@w|@0] * f v ; XADD @w * f v ; XLEN @w
XADD @x [KEEPREF|DELREF|ACKED] MAXLEN 1 9-1 f v ; XRANGE @x - + ; XPENDING @x g1
XAUTOCLAIM [@x|@0] [g1|g2|nosuch] c2 0 [0|1-1|(1-1|-|x] [COUNT 1|COUNT 0|] [JUSTID|] ; XPENDING @x g1
XAUTOCLAIM @x g1 c2 [1000000|-1|x] 0
XCLAIM [@x|@0] [g1|g2|nosuch] c2 0 [1-1|1-1 2-1|9-9|3-1] [IDLE 5000|TIME 1700000000000|] [RETRYCOUNT 7|] [FORCE|] [JUSTID|] [LASTID 3-1|] ; XPENDING @x g1
XCLAIM @x g1 c2 [1000000 1-1|-1 1-1|0 x|0 1-1 RETRYCOUNT -1|0 1-1 IDLE x|0] ; XPENDING @x g1
XDEL [@x|@w|@0] [1-1|1-1 2-1|9-9|1|x] ; XLEN @x
XDELEX [@x|@0] [KEEPREF|DELREF|ACKED|] IDS [1 1-1|2 1-1 9-9|0|1 x] ; XLEN @x ; XPENDING @x g1
XGROUP CREATE [@x|@w|@0] [g1|new] [0|$|2-1|x] [MKSTREAM|] ; EXISTS @0
XGROUP CREATE [@x|@w] new [0|$|2-1] [ENTRIESREAD 2|ENTRIESREAD 0|ENTRIESREAD -5|ENTRIESREAD x]
XGROUP CREATECONSUMER [@x|@0] [g1|nosuch] [c1|new]
XGROUP DELCONSUMER [@x|@0] [g1|nosuch] [c1|new] ; XPENDING @x g1
XGROUP DESTROY [@x|@0] [g1|nosuch]
XGROUP SETID [@x|@0] [g1|nosuch] [0|$|2-1|x] [ENTRIESREAD 2|]
XGROUP HELP
XINFO STREAM [@w|@0]
XINFO STREAM [@x|@w] [FULL|FULL COUNT 1|FULL COUNT 0|NOSUCH]
XINFO GROUPS [@x|@w|@0]
XINFO CONSUMERS [@x|@0] [g1|g2|nosuch]
XINFO HELP
XLEN [@x|@w|@0]
XPENDING [@x|@0] [g1|g2|nosuch] [|- + 10|- + 10 c1|- + 10 nosuch|2 + 1|IDLE 100000 - + 10|IDLE 0 (1-1 + 10 c1|+ - 5|- + -1]
XRANGE [@w|@0] [- +|2 +|(1-1 +|1-1 2|+ -|x +] [|COUNT 1|COUNT 0|COUNT -1]
XREVRANGE [@w|@0] [+ -|+ 2|+ (1-1|2 1-1|- +|+ x] [|COUNT 1|COUNT 0]
XREAD [COUNT 1|COUNT 0|COUNT -1|] [BLOCK 5|BLOCK -1|] STREAMS [@w 0|@w 2-1|@w $|@0 0|@w @w2 0 2-1|@w @0 0 0|@w @s 0 0|@w x|@w +|@w >]
XREAD [STREAMS @w @w2 0|COUNT STREAMS @w 0|BLOCK x STREAMS @w 0|block 5 streams @w 3-1|NOACK STREAMS @w 0]
XREADGROUP GROUP [g1|g2|nosuch] c1 [COUNT 1|] [BLOCK 5|] [NOACK|] STREAMS [@x >|@x 0|@x 1-1|@0 >|@x @x2 > 0|@x $] ; XPENDING @x g1
XREADGROUP [GROUP g1 STREAMS @x >|GROUP g1 c1 STREAMS @x|STREAMS @x >|GROUP g1 new STREAMS @x >]
XSETID [@w|@x|@0] [9-9|1-1|x|3-1] [|ENTRIESADDED 50 MAXDELETEDID 0-1|ENTRIESADDED 1 MAXDELETEDID 9-9|ENTRIESADDED 5]
XTRIM [@w|@x|@0] [MAXLEN 2|MAXLEN = 2|MAXLEN 0|MINID 2-1|MINID = 3|MAXLEN -1|MINID x|MAXLEN = 2 LIMIT 5] ; XLEN @w
~XTRIM [@w|@0] [MAXLEN ~ 1|MINID ~ 3|MAXLEN ~ 1 LIMIT 5|MINID ~ 3 LIMIT 1]
XTRIM @x MAXLEN 1 [KEEPREF|DELREF|ACKED] ; XRANGE @x - + ; XPENDING @x g1
"""

VECTORS = r"""
~VADD [@v|@0] [REDUCE 2|] [VALUES 3 1 2 3|VALUES 2 1 2] c [CAS|] [NOQUANT|Q8|BIN|] [EF 10|] [SETATTR {"a":1}|] [M 8|]
VCARD [@v|@0]
VDIM [@v|@0]
VEMB [@v|@0] [a|nosuch] [|RAW]
VGETATTR [@v|@0] [a|nosuch]
VINFO [@v|@0]
VISMEMBER [@v|@0] [a|nosuch]
~VLINKS [@v|@0] [a|nosuch] [|WITHSCORES]
~VRANDMEMBER [@v|@0] [|1|-3]
VREM [@v|@0] [a|nosuch] ; VCARD @v
VSETATTR [@v|@0] [a|nosuch] [{"b":2}|""] ; VGETATTR @v a
VSIM [@v|@0] [ELE a|VALUES 2 1 0|ELE nosuch] [WITHSCORES|] [COUNT 1|] [EF 10|] [TRUTH|] [NOTHREAD|]
"""

SCRIPTING = r"""
EVAL return(1) 0
EVAL return(redis.call('GET',KEYS\x5b1\x5d)) 1 [@s|@l|@0]
EVAL return(redis.call('SET',KEYS\x5b1\x5d,ARGV[1])) 1 [@s|@0] v ; GET @s
EVAL return(redis.pcall('LPUSH',KEYS\x5b1\x5d,ARGV[1])) 1 [@s|@l] v
EVAL [return{1,2,{3,'a'}}|return(redis.error_reply('MY\x20error'))|return(redis.status_reply('FINE'))|return{ok='x'}|return{err='bad'}|return(nil)|return(false)|return(true)|return(3.9)|return{double=1.5}|nosuch()|error('x')|return(redis.sha1hex(''))] 0
EVAL redis.setresp(3)\x20return[\x20redis.call('HGETALL',KEYS\x5b1\x5d)\x20|(true)|(redis.call('ZRANGE',KEYS\x5b2\x5d,0,-1,'WITHSCORES'))] 2 @h @z
EVAL redis.call('SET',KEYS\x5b1\x5d,'half')\x20redis.call('NOSUCH') 1 @s ; GET @s
EVAL #!lua\x20flags=no-writes\nreturn\x20redis.call([GET|'GET'|'DEL'],KEYS\x5b1\x5d) 1 @s
EVAL return(ARGV) 0 [a b|""|]
EVAL return(redis.call([SELECT,'SELECT',1|'BLPOP',KEYS\x5b1\x5d,0|'MULTI'|'SUBSCRIBE','c'])) 1 @0
EVAL [return(|""|return(KEYS\x5b3\x5d)] 1 @s
EVAL return(redis.call('TIME')) 0
EVALSHA [e0e1f9fabfc9d4800c877a703b823ac0578ff8db|ffffffffffffffffffffffffffffffffffffffff|short] 0
SCRIPT LOAD return(1) ; EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0 ; EVALSHA E0E1F9FABFC9D4800C877A703B823AC0578FF8DB 0
EVAL_RO return(redis.call('GET',KEYS\x5b1\x5d)) 1 [@s|@0]
EVAL_RO return(redis.call('SET',KEYS\x5b1\x5d,'v')) 1 @s
EVALSHA_RO [e0e1f9fabfc9d4800c877a703b823ac0578ff8db|ffffffffffffffffffffffffffffffffffffffff] 0
SCRIPT EXISTS [e0e1f9fabfc9d4800c877a703b823ac0578ff8db|ffffffffffffffffffffffffffffffffffffffff short]
SCRIPT LOAD [return(2)|return(|""]
SCRIPT SHOW [e0e1f9fabfc9d4800c877a703b823ac0578ff8db|ffffffffffffffffffffffffffffffffffffffff]
SCRIPT HELP
SCRIPT KILL
"""
