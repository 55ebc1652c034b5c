# What tests can say of a response.

use Test::Nginx::Socket 'no_plan';

no_shuffle();
run_tests();

__DATA__

=== TEST 1: headers there, absent, alike
--- config
location /a {
    add_header X-Number 123;
    add_header X-List a;
    add_header X-List b;
    return 204;
}
--- request
GET /a
--- error_code: 204
--- response_headers
X-Number: 123
X-List: a, b
! X-None
--- raw_response_headers_like chop
X-Number: \d+\r\n
--- raw_response_headers_unlike: X-None



=== TEST 2: headers by pattern
--- config
location /a { return 302 /b; }
--- request
GET /a
--- error_code_like: ^30[12]$
--- response_headers_like
Location: http://localhost:\d+/b
Server: nginx.*
--- response_body_like: 302 Found
--- access_log
"GET /a HTTP/1.1" 302
--- no_access_log
"GET /b



=== TEST 3: a header that names the port
--- config
absolute_redirect on;
location /a { return 301 http://localhost:$server_port/b; }
--- request
GET /a
--- error_code: 301
--- response_headers
Location: http://localhost:$ServerPort/b
--- response_body_unlike: \b302\b



=== TEST 4: a chunked body is put together
--- config
location /a {
    ssi on;
    default_type text/html;
}
--- user_files
>>> a
one <!--#echo var="arg_x"--> three
--- request
GET /a?x=two
--- response_headers
Transfer-Encoding: chunked
--- response_body
one two three



=== TEST 5: a body by pattern
--- config
location /a { return 200 "id=17\n"; }
--- request
GET /a
--- response_body eval
qr/^id=\d+$/



=== TEST 6: filters
--- config
location /a { return 200 "hello"; }
--- request
GET /a
--- response_body_filters eval
[sub { "[$_[0]]" }, 'uc']
--- response_body chop
[HELLO]



=== TEST 7: a filter by name, for each of several requests
--- config
location /a { return 200 "hello"; }
--- request eval
["GET /a", "GET /a"]
--- response_body_filters eval
[['length'], ['md5_hex']]
--- response_body eval
["5", "5d41402abc4b2a76b9719d911017c592"]



=== TEST 8: JSON, whatever the order of its members
--- config
location /a { return 200 '{"b": 2, "a": [1]}'; }
--- request
GET /a
--- response_body_json_sort
--- response_body
{"a":[1],"b":2}



=== TEST 9: one of a kind may be a list, too
--- config
location /a { return 200 "a"; }
--- request eval
["GET /a"]
--- error_code eval
[200]
--- response_body eval
["a"]



=== TEST 10: files, as a list and with a date
--- config
--- user_files eval
[["d/a.txt", "a\n", "201506161200"]]
--- request
GET /d/a.txt
--- response_headers
Last-Modified: Tue, 16 Jun 2015 12:00:00 GMT
--- response_body
a
