# What nginx -t finds where another directive is in the way of an endpoint.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: auth_basic of the server, where Nango cannot log in
--- config
    auth_basic app;
    location = /webhook { nango_webhook; }
--- error_log eval
qr/\[warn\].*"auth_basic" refuses those who ask "nango_webhook", who cannot log in; add "auth_basic off;" here in .*nginx\.conf:\d+/



=== TEST 2: auth_request of the server, where a provider's redirect arrives
--- config
    auth_request /auth;
    location = /auth { internal; return 204; }
    location = /callback { nango_oauth_callback; }
--- error_log eval
qr/\[warn\].*"auth_request" refuses those who ask "nango_oauth_callback", who cannot log in; add "auth_request off;" here in .*nginx\.conf:\d+/



=== TEST 3: where it is off, or an address may do instead
--- config
    auth_basic   app;
    auth_request /auth;
    location = /auth { internal; return 204; }
    location = /webhook {
        auth_basic   off;
        auth_request off;
        nango_webhook;
    }
    location = /callback {
        satisfy any;
        allow   10.0.0.0/8;
        deny    all;
        nango_oauth_callback;
    }
--- no_error_log
refuses those who ask



=== TEST 4: a return in the location
--- config
    location = /webhook { return 301 https://localhost/; nango_webhook; }
--- error_log eval
qr/\[warn\].*"return" answers here before "nango_webhook" could in .*nginx\.conf:\d+/



=== TEST 5: a return of the server
--- config
    return 301 https://localhost$request_uri;
    location = /status { nango_status; }
--- error_log
"return" answers here before "nango_status" could
--- error_code: 301



=== TEST 6: a return of the server, and nango_require
--- config
    return 301 https://localhost$request_uri;
    location /app/ {
        auth_basic    app;
        nango_owner   end_user_id $remote_user;
        nango_require github;
    }
--- error_log
"nango_require" does not guard what "return" answers here
--- error_code: 301



=== TEST 7: a return on a condition may be meant
--- config
    if ($request_method = TRACE) { return 405; }
    location = /webhook {
        if ($http_user_agent = bad) { return 403; }
        nango_webhook;
    }
--- no_error_log
answers here before



=== TEST 8: nango_status manage for anybody
--- config
    location = /manage { nango_status manage; }
--- error_log eval
qr/\[warn\].*"nango_status manage" lets anybody act: there is no "allow", "auth_basic", "auth_request" or "internal" here in .*nginx\.conf:\d+/



=== TEST 9: for those who may; and nango_status, which does nothing
--- config
    location = /manage { allow 127.0.0.1; deny all; nango_status manage; }
    location = /status { nango_status; }
--- no_error_log
lets anybody act



=== TEST 10: $remote_user where auth_basic is switched off
--- config
    auth_basic app;
    location = /session {
        auth_basic  off;
        nango_owner end_user_id $remote_user;
        nango_session;
    }
--- error_log
"$remote_user" in nango_owner is what the client claims to be: there is no auth_basic here for "nango_session"



=== TEST 11: end_user without its id
--- http_config
    nango_environment a { session_format end_user; api_key data:k; }
--- config
    location = /session { nango_owner user $remote_user; nango_session; }
--- must_die
--- error_log
"nango_session" needs a nango_owner or nango_tag "end_user_id": "session_format end_user" is sent with it



=== TEST 12: end_user with its id as a tag of the server
--- http_config
    nango_environment a { session_format end_user; api_key data:k; }
--- config
    auth_basic app;
    nango_tag end_user_id $remote_user;
    location = /session { nango_owner user $remote_user; nango_session; }
