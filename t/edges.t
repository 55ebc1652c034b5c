# The edges of the endpoints: bodies of unknown length,
# requests that come by detours, early answers on kept connections.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start();

our $Created = event('creation', 'true', 'c-1', end_user_id => '42');

sub chunked {
    my ($uri, $headers, $chunks) = @_;

    return "POST $uri HTTP/1.1\r\nHost: localhost\r\n"
           . "Transfer-Encoding: chunked\r\n$headers\r\n\r\n$chunks";
}

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a chunked body beyond max_body is not written to the disk
--- config
    location = /webhook { nango_webhook max_body=200k; }
    location = /ok { return 204; }
--- raw_request eval
::chunked('/webhook', signature('') . "\r\nConnection: close",
          "10000\r\n" . 'x' x 65536 . "\r\n")
. ("10000\r\n" . 'x' x 65536 . "\r\n") x 40 . "0\r\n\r\n"
--- error_code: 413
--- response_headers
X-Nango-Error: body_too_large
--- error_log
a webhook of 2686976 bytes is larger than max_body



=== TEST 2: a chunked body of max_body is stored
--- config
    location = /webhook { nango_webhook max_body=200k; }
--- raw_request eval
::chunked('/webhook', signature('x' x 204800) . "\r\nConnection: close",
          ("800\r\n" . 'x' x 2048 . "\r\n") x 100 . "0\r\n\r\n")
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 3: a mirrored request without its body is no crash
--- config
    location = /webhook { internal; nango_webhook; }
    location = /mirror {
        mirror               /webhook;
        mirror_request_body  off;
        proxy_pass           http://127.0.0.1:$TEST_NGINX_SERVER_PORT/ok;
    }
    location = /ok { return 204; }
--- request eval
[webhook($::Created, '/mirror'), webhook($::Created, '/mirror')]
--- more_headers eval
[signature($::Created), signature($::Created)]
--- error_code eval
[204, 204]
--- no_error_log
exited on signal



=== TEST 4: after a malformed chunk nothing is taken for a request
--- config
    location = /webhook { nango_webhook; }
    location = /smuggled { return 204; }
--- raw_request eval
::chunked('/webhook', signature($::Created),
          "zz\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_body
Connection: close
--- error_log
client sent invalid chunked body



=== TEST 5: nor after one of a session's
--- config
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
--- raw_request eval
::chunked('/session', 'X-User: 42',
          "zz\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_body
Connection: close
--- error_log
client sent invalid chunked body



=== TEST 6: what nginx answers while it reads a body is no error_page either
--- config
    error_page 400 408 413 500 =302 http://example.com/;
    client_body_timeout 20s;
    location = /webhook { nango_webhook; }
--- raw_request eval
[::chunked('/webhook', signature($::Created), ''), "zz\r\n"]
--- raw_request_middle_delay: 0.7
--- error_code: 400
--- response_headers
! Location
--- error_log
client sent invalid chunked body
a webhook was answered 400 by another directive



=== TEST 7: a stored webhook is not answered 412
--- config
    location = /webhook { nango_webhook; }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created) . "\nIf-Match: \"x\"\n"
. 'If-Unmodified-Since: Mon, 01 Jan 2018 00:00:00 GMT'
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 8: a body that is refused is not asked for
--- config
    lingering_timeout 100ms;
    location = /webhook { nango_webhook; }
--- raw_request eval
"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
. "Expect: 100-continue\r\nConnection: close\r\n\r\n"
--- error_code: 401
--- error_log
a webhook has no X-Nango-Hmac-Sha256 header



=== TEST 9: a session's body may be in a file
--- config
    location = /session {
        client_body_in_file_only clean;
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
--- request
POST /session
{"integration":"github"}
--- more_headers
X-User: 42
Content-Type: application/json
--- response_body_like: sessionToken
--- error_log
a client request body is buffered to a temporary file



=== TEST 10: but not a large one
--- config
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
--- raw_request eval
::chunked('/session', "X-User: 42\r\nConnection: close",
          "2001\r\n" . ' ' x 8193 . "\r\n0\r\n\r\n")
--- error_code: 413
--- response_headers
X-Nango-Error: body_too_large



=== TEST 11: post_action would take a request away that is being worked on
--- config
    location = /webhook { post_action /ok; nango_webhook; }
    location = /ok { return 204; }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- error_log
"post_action" is ignored where "nango_webhook" is



=== TEST 12: what nginx answers while it reads a session's body is no error_page
--- config
    error_page 400 408 413 500 =302 http://example.com/;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
--- raw_request eval
[::chunked('/session', 'X-User: 42', ''), "zz\r\n"]
--- raw_request_middle_delay: 0.1
--- error_code: 400
--- response_headers
! Location
--- error_log
client sent invalid chunked body
