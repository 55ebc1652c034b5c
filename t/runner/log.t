# What tests can say of the error log.

use Test::Nginx::Socket;

repeat_each(2);
no_long_string();

plan tests => repeat_each() * 27;

run_tests();

__DATA__

=== TEST 1: strings, one a line
--- config
location /a { return 200; access_log off; }
location /missing { root /nowhere; }
--- request
GET /missing
--- error_code: 404
--- response_body_like: 404
--- error_log
open() "/nowhere/missing" failed
GET /missing
--- no_error_log
[alert]
[emerg]
[crit]



=== TEST 2: a pattern
--- config
location /missing { root /nowhere; }
--- request
GET /missing
--- error_code: 404
--- error_log eval
qr/open\(\) ".*" failed \(2: [^)]+\)/
--- no_error_log eval
qr/\[(?:alert|emerg)\]/



=== TEST 3: lists of both
--- config
location /missing { root /nowhere; }
--- request
GET /missing
--- error_code: 404
--- error_log eval
["open() \"/nowhere", qr/request: "GET/]
--- no_error_log eval
["[alert]", qr/\[emerg\]/]



=== TEST 4: parts of lines
--- config
location /missing { root /nowhere; }
--- request
GET /missing
--- error_code: 404
--- grep_error_log eval
qr/open\(\) "[^"]+"|request: "[^"]+"/
--- grep_error_log_out
open() "/nowhere/missing"



=== TEST 5: parts of lines, for each time that the test is run
--- config
location /missing { root /nowhere; }
--- request
GET /missing
--- error_code: 404
--- grep_error_log: /nowhere
--- grep_error_log_out eval
["/nowhere\n/nowhere\n", qr{^/no}]



=== TEST 6: another level
--- log_level: crit
--- config
location /missing { root /nowhere; }
--- request
GET /missing
--- error_code: 404
--- no_error_log
open()



=== TEST 7: each of several requests has its own part
--- config
location /missing { root /nowhere; }
--- request eval
["GET /missing", "GET /missing"]
--- error_code eval
[404, 404]
--- error_log
"GET /missing HTTP/1.1"



=== TEST 8: a bad sign that the test expects
--- config
location /a { proxy_pass http://unix:/nowhere/up.sock; }
--- request
GET /a
--- error_code: 502
--- error_log
[crit]
