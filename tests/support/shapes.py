"""Event texts as the systems in the field write them: each must reach the browser byte for byte."""

from __future__ import annotations

ANALYSIS = {
    "repo.status_changed": '{"type":"repo.status_changed","ts":1731000000123,"repo_id":42,'
    '"payload":{"from":"cloning","to":"ready"},"request_id":"req-7"}',
    "task.status_changed": '{"type":"task.status_changed","ts":1731000000456,"repo_id":42,"task_id":7,'
    '"payload":{"from":"queued","to":"failed","error_msg":"Zeitüberschreitung","started_at":null},'
    '"request_id":"req-8"}',
    "doc.created": '{"type":"doc.created","ts":1731000000789,"repo_id":42,"task_id":7,'
    '"payload":{"doc_id":9,"title":"架构概览","filename":"overview.md"},"request_id":"req-9"}',
    "task.progress": '{"type":"task.progress","ts":1731000001000,"repo_id":42,"task_id":7,'
    '"payload":{"phase":"analyze","percent":37.0,"message":"\\u5206\\u6790\\u4e2d"},"request_id":"r"}',
    "log.append": '{"type":"log.append","ts":1731000001001,"repo_id":42,"task_id":7,'
    '"payload":{"level":"info","message":"line one\\nline two\\ttabbed \\"quoted\\""},"request_id":"r"}',
}
PIPELINE = {
    "agent:complete": '{"event_type": "agent:complete", "client_payload": {"task_id": "T-1", "branch": '
    '"feature/x", "description": "fix the build", "retry_count": 0}}',
    "cloud": '{"specversion":"1.0","type":"com.example.build.done","source":"/ci/build","id":"A234-1234",'
    '"time":"2024-04-05T17:31:00Z","datacontenttype":"application/json","data":{"ok":true}}',
}
DOCUMENTS = {
    "status_update": '{"type":"status_update","data":{"taskId":"9f1c","status":"PROCESSING","progress":1e2,'
    '"message":"正在翻译第 3 页…"}}',
    "notification": '{"type": "notification", "data": {"title": "完成", "read": false, "emoji": "🎉"}}',
}
BOARD = {
    "task_created": '{"type":"task_created","project_id":"p-1","data":{"id":12,"title":"Write it",'
    '"parent":null,"children":[]},"timestamp":"2025-01-02T03:04:05.678901"}',
    "file_locks_update": '{"type":"file_locks_update","project_id":null,"data":{"locks":{"a/b.py":'
    '{"agent":"ä","since":1.7e9}}},"timestamp":"2025-01-02T03:04:05+00:00"}',
}
PECULIAR = {
    "key_order": '{"z":1,"a":2,"m":{"y":[],"b":{}},"a2":[3,1,2]}',
    "spaces": '{  "a" :\t1 ,"b":   [ 1,2 ]  }',
    "big_integers": '{"n":1208925819614629174706176,"m":-9007199254740993,"big":18446744073709551616}',
    "floats": '{"a":1.0,"b":1,"c":1.50,"d":1E5,"e":-0.0,"f":0.1000000000000000055511151231257827}',
    "huge_exponent": '{"tiny":1e-400,"large":1e400}',
    "escapes": '{"a":"\\u00e9\\/\\b","b":"\\ud83d\\ude00","line":"\\u2028\\u2029"}',
    "lone_surrogate": '{"a":"\\ud800","b":"\\udc00x"}',
    "repeated_keys": '{"a":1,"a":2}',
    "raw_separators": '{"a":"\u2028\u2029\x7f\u0085"}',
    "empty": "{}",
    "empty_key": '{"":""}',
    "nested": '{"a":' + "[" * 200 + "]" * 200 + "}",
}
FOREIGN: dict[str, str] = {**ANALYSIS, **PIPELINE, **DOCUMENTS, **BOARD, **PECULIAR}
"""Every shape by a name."""

NO_EVENTS: dict[str, bytes] = {
    "empty": b"",
    "array": b"[1,2]",
    "string": b'"text"',
    "number": b"17",
    "null": b"null",
    "words": b"hello there",
    "cut_off": b'{"a":1',
    "trailing": b'{"a":1} {"b":2}',
    "single_quotes": b"{'a':1}",
    "trailing_comma": b'{"a":1,}',
    "not_a_number": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "comment": b'{"a":1/*no*/}',
    "raw_newline_in_string": b'{"a":"one\ntwo"}',
    "raw_nul_in_string": b'{"a":"\x00"}',
    "no_utf8": b'{"a":"\xff\xfe"}',
    "overlong_utf8": b'{"a":"\xc0\xaf"}',
    "surrogate_in_utf8": b'{"a":"\xed\xa0\x80"}',
    "latin_1": '{"a":"é"}'.encode("latin-1"),
    "utf16": '{"a":1}'.encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\x00\x00",
    "event_stream": b"data: x\n\nid: 1\n\n",
}
"""Messages that are no JSON object in UTF-8."""
