# How requests are put together: read back from what nginx got.

use Test::Nginx::Socket;

repeat_each(2);

plan tests => repeat_each() * (blocks() * 2 + 7);

no_long_string();
run_tests();

__DATA__

=== TEST 1: a path alone
--- config
location /a { return 200 "$request|$http_host|$http_connection"; }
--- request
GET /a
--- response_body chomp
GET /a HTTP/1.1|localhost|close



=== TEST 2: a method alone asks for the root, where a page is
--- config
--- request
GET
--- response_body_like: It works!



=== TEST 3: a body has its length, and no blank around it
--- config
location /a { return 200 "$request_method $content_length"; }
--- request eval
"POST /a\n  name=value \n\n"
--- response_body chomp
POST 10



=== TEST 4: a chunked body goes out as it is
--- config
location /a {
    client_body_in_single_buffer on;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/b;
    proxy_set_header X-Body $request_body;
}
location /b { return 200 "$content_length"; }
--- more_headers
Transfer-Encoding: chunked
--- request eval
"PUT /a\n5\r\nhello\r\n0\r\n\r\n"
--- response_body chomp
5



=== TEST 5: headers, with one of the runner's replaced
--- config
location /a { return 200 "$http_host $http_x_a $http_x_b"; }
--- more_headers
X-A: one
# X-B: not this one
X-B: two
Host: example.com
--- request
# a comment may stand above

OPTIONS /a
--- response_body chomp
example.com one two



=== TEST 6: several requests, each with its headers
--- config
location /a { return 200 "a $http_x"; }
location /b { return 201 "b $http_x"; }
--- more_headers eval
["X: 1", "X: 2"]
--- request eval
["GET /a", "DELETE /b"]
--- error_code eval
[200, 201]
--- response_body eval
["a 1", "b 2"]
--- no_error_log
[warn]



=== TEST 7: cut into packets, with a pause
--- config
location /a { return 200 "$request_method $content_length"; }
--- request eval
[["PO", {value => "ST /a HT", delay_before => 0.1}, "TP/1.1\nbo", "dy"]]
--- response_body chomp
POST 4



=== TEST 8: pipelined
--- config
location /a { return 200 "a $connection_requests $http_connection"; }
--- pipelined_requests eval
["GET /a", "GET /a"]
--- response_body eval
["a 1 keep-alive", "a 2 close"]



=== TEST 9: raw, in two packets
--- config
location /a { return 200 "$http_host"; }
--- raw_request eval
["GET /a HTTP/1.0\r\nHo", "st: raw\r\n\r\n"]
--- raw_request_middle_delay: 0.05
--- response_body chomp
raw



=== TEST 10: HEAD has a length and no body
--- config
location /a { return 200 "four"; }
--- request
HEAD /a
--- response_headers
Content-Length: 4
--- response_body



=== TEST 11: the client gives up
--- config
location /a {
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1;
    proxy_set_header Host h;
}
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_query_len: 47
--- tcp_reply_delay: 500ms
--- tcp_reply eval
"HTTP/1.0 200 OK\r\n\r\n"
--- request
GET /a
--- timeout: 0.2
--- abort
--- ignore_response
--- wait: 0.1
--- error_log
client prematurely closed connection



=== TEST 12: HTTP/0.9
--- config
location /a { return 200 "nine"; }
--- raw_request eval
"GET /a\r\n"
--- http09
--- response_body chomp
nine
