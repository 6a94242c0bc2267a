"""Keys in files: `crossfade export` and `crossfade import`.

`records` is the shape that all formats share. One module per format, writer and reader: `json_form` (JSON and JSON
lines, as RIOT has them), `xml_form`, `csv_form`, `lossless_form`; `formats` lists them. They are pure: bytes in,
records out, and back. Doors: `opening` (files, gzip, standard streams), `reading` (keys of a server), `writing` and
`big_keys` (keys onto a server). `exporting` and `importing` are the two commands' work.
"""
