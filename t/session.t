# nango_session against the simulated Nango: what it sends, what it answers.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Sim = <<'EOF';
    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our $Config = <<'EOF' . $Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session;
    }
EOF

# A session, and what the simulator saw of it.
our @Steps = ('POST /session', 'GET /_sim/requests?path=/connect/sessions');

# The part of the record that holds a body, as the simulator's JSON has it.
sub seen {
    my ($json) = @_;

    $json =~ s/([\\"])/\\$1/g;

    return quotemeta qq("body":"$json");
}

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init', 'NangoTest::sim("reset")')
        if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a session for an end user
--- config eval: $::Config
--- request eval: [@::Steps]
--- more_headers eval
['X-User: 42', '']
--- response_body_like eval
['^\{"sessionToken":"nango_connect_session_[0-9a-f]{64}",'
     . '"connectLink":"http://localhost:3009/\?session_token='
     . 'nango_connect_session_[0-9a-f]{64}&apiURL='
     . 'https%3A%2F%2Fnango\.example\.com",'
     . '"expiresAt":"20[^"]+Z","apiURL":"https://nango\.example\.com",'
     . '"connectURL":"https://connect\.nango\.dev"\}$',
 ::seen('{"tags":{"end_user_id":"42"}}')]
--- error_code eval
[200, 200]



=== TEST 2: with the right headers, and none of the client's
--- config eval: $::Config
--- request eval: [@::Steps]
--- more_headers eval
["X-User: 42\nX-Spy: me\nCookie: a=b\nAuthorization: Basic eDp5", '']
--- response_body_like eval
['sessionToken',
 '"headers":\["Host","127\.0\.0\.1:\d+",'
 . '"Authorization","Bearer b3a1c0de-0000-4000-8000-00000000abcd",'
 . '"User-Agent","nginx-nango/[0-9.]+","Accept","application/json",'
 . '"Content-Type","application/json","Content-Length","\d+"\]']



=== TEST 3: an organisation, and further tags; empty ones are left out
--- config eval
<<'EOF' . $::Sim;
    nango_tag plan pro;
    nango_tag team $http_x_team;

    location = /session {
        nango_owner organization_id $http_x_org;
        nango_tag   plan "$http_x_plan";
        nango_tag   region eu;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
["X-Org: acme\nX-Plan: free", '']
--- response_body_like eval
['sessionToken',
 ::seen('{"tags":{"organization_id":"acme","plan":"free","region":"eu"}}')]



=== TEST 4: a user of an organisation
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_owner organization_id $http_x_org;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
["X-Org: acme\nX-User: 42", '']
--- response_body_like eval
['sessionToken',
 ::seen('{"tags":{"end_user_id":"42","organization_id":"acme"}}')]



=== TEST 5: the guide's form
--- http_config eval
qq{
    nango_environment prod {
        api            \$TEST_NGINX_NANGO_API;
        api_public     https://nango.example.com;
        api_key        data:$NangoTest::API_KEY;
        session_format end_user;
    }
}
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_owner organization_id $http_x_org;
        nango_tag   end_user_email ann@example.com;
        nango_tag   end_user_display_name Ann;
        nango_tag   organization_display_name Acme;
        nango_tag   plan pro;
        nango_integrations github;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
["X-Org: acme\nX-User: 42", '']
--- response_body_like eval
['sessionToken',
 ::seen('{"end_user":{"id":"42","email":"ann@example.com",'
      . '"display_name":"Ann","tags":{"plan":"pro"}},'
      . '"organization":{"id":"acme","display_name":"Acme"},'
      . '"allowed_integrations":["github"]}')]



=== TEST 6: both forms
--- http_config eval
qq{
    nango_environment prod {
        api            \$TEST_NGINX_NANGO_API;
        api_public     https://nango.example.com;
        api_key        data:$NangoTest::API_KEY;
        session_format both;
    }
}
--- config eval: $::Config
--- request eval: [@::Steps]
--- more_headers eval
['X-User: 42', '']
--- response_body_like eval
['sessionToken',
 ::seen('{"tags":{"end_user_id":"42"},"end_user":{"id":"42"}}')]



=== TEST 7: quotes, backslashes and unicode in every value
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_tag   note $http_x_user;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
[qq(X-User: a"b\\c\x{c3}\x{bc}\x{f0}\x{9f}\x{98}\x{80}'</script>), '']
--- response_body_like eval
['sessionToken',
 ::seen(qq({"tags":{"end_user_id":"a\\"b\\\\c\x{c3}\x{bc}\x{f0}\x{9f}\x{98})
      . qq(\x{80}'</script>","note":"a\\"b\\\\c\x{c3}\x{bc}\x{f0}\x{9f})
      . qq(\x{98}\x{80}'</script>"}}))]



=== TEST 8: a control character in an owner is refused
--- config eval: $::Config
--- raw_request eval
"POST /session HTTP/1.1\r\nHost: localhost\r\nX-User: a\x01b\r\n"
. "Connection: close\r\n\r\n"
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_tag
--- error_log
the value of nango_owner "end_user_id" is none that Nango takes



=== TEST 9: so is what is no UTF-8
--- config eval: $::Config
--- request
POST /session
--- more_headers eval
"X-User: a\x{ff}b"
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_tag
--- error_log
is none that Nango takes



=== TEST 10: a tag that Nango would refuse is left out with a warning
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_tag   end_user_email $http_x_mail;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
["X-User: 42\nX-Mail: nobody", '']
--- response_body_like eval
['sessionToken', ::seen('{"tags":{"end_user_id":"42"}}')]
--- error_log
the value of nango_tag "end_user_email" is left out: it



=== TEST 11: nobody
--- config eval: $::Config
--- request
POST /session
--- error_code: 401
--- response_headers
X-Nango-Error: owner_required
--- response_body chomp
{"error":{"code":"owner_required","message":"It is not known who is asking"}}



=== TEST 12: one of two variables empty is nobody as well
--- config
    location = /session {
        nango_owner end_user_id "$http_x_tenant-$http_x_user";
        nango_session;
    }
--- request
POST /session
--- more_headers
X-Tenant: acme
--- error_code: 401



=== TEST 13: nothing in the request changes the owner
--- config eval: $::Config
--- request eval
["POST /session\n" . '{"tags":{"end_user_id":"1"}}',
 "POST /session\n" . '{"end_user":{"id":"1"}}',
 "POST /session\n" . '{"integration":"github","end_user_id":"1"}',
 'GET /_sim/requests?path=/connect/sessions']
--- more_headers eval
["X-User: 42\nContent-Type: application/json",
 "X-User: 42\nContent-Type: application/json",
 "X-User: 42\nContent-Type: application/json", '']
--- error_code eval
[400, 400, 400, 200]
--- response_body_like eval
['invalid_body', 'invalid_body', 'invalid_body', '"count":0']



=== TEST 14: the request's integration goes along
--- config eval: $::Config
--- request eval
["POST /session\n" . '{"integration":"github"}', $::Steps[1]]
--- more_headers eval
["X-User: 42\nContent-Type: application/json", '']
--- response_body_like eval
['sessionToken',
 ::seen('{"tags":{"end_user_id":"42"},"allowed_integrations":["github"]}')]



=== TEST 15: several
--- config eval: $::Config
--- request eval
["POST /session\n" . '{"integrations":["github","slack"]}',
 $::Steps[1]]
--- more_headers eval
["X-User: 42\nContent-Type: application/json; charset=utf-8", '']
--- response_body_like eval
['sessionToken',
 ::seen('{"tags":{"end_user_id":"42"},'
      . '"allowed_integrations":["github","slack"]}')]



=== TEST 16: the configured list goes along by itself
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_integrations github $http_x_more;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
['X-User: 42', '']
--- response_body_like eval
['sessionToken',
 ::seen('{"tags":{"end_user_id":"42"},"allowed_integrations":["github"]}')]



=== TEST 17: what is not in it is not allowed
--- config
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_integrations github;
        nango_session;
    }
--- request
POST /session
{"integrations":["github","slack"]}
--- more_headers
X-User: 42
Content-Type: application/json
--- error_code: 403
--- response_headers
X-Nango-Error: integration_not_allowed



=== TEST 18: a list that turns out empty allows none
--- config
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_integrations $http_x_more;
        nango_session;
    }
--- request
POST /session
--- more_headers
X-User: 42
--- error_code: 403



=== TEST 19: an integration that is none by its syntax
--- config eval: $::Config
--- request
POST /session
{"integration":"git/hub"}
--- more_headers
X-User: 42
Content-Type: application/json
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_body



=== TEST 20: a body that is no JSON
--- config eval: $::Config
--- request
POST /session
integration=github
--- more_headers
X-User: 42
Content-Type: application/json
--- error_code: 400



=== TEST 21: a body of another type
--- config eval: $::Config
--- request
POST /session
{"integration":"github"}
--- more_headers
X-User: 42
Content-Type: text/plain
--- error_code: 415
--- response_headers
X-Nango-Error: unsupported_media_type



=== TEST 22: a body that is too large
--- config eval: $::Config
--- request eval
"POST /session\n" . '{"integration":"' . 'x' x 9000 . '"}'
--- more_headers
X-User: 42
Content-Type: application/json
--- error_code: 413
--- response_headers
X-Nango-Error: body_too_large



=== TEST 23: a chunked body that is too large
--- config eval: $::Config
--- raw_request eval
"POST /session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
. "X-User: 42\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
. "7530\r\n" . ' ' x 30000 . "\r\n0\r\n\r\n"
--- error_code: 413



=== TEST 24: other methods
--- config eval: $::Config
--- request
GET /session
--- more_headers
X-User: 42
--- error_code: 405
--- response_headers
Allow: POST



=== TEST 25: Nango refuses the integration
--- config eval: $::Config
--- request
POST /session
{"integration":"unheard-of"}
--- more_headers
X-User: 42
Content-Type: application/json
--- error_code: 502
--- response_headers
X-Nango-Error: nango_error
--- response_body chomp
{"error":{"code":"nango_error","message":"Nango did not issue a session"}}
--- error_log
answered 400, not a session: "invalid_body", "Integration does not exist"



=== TEST 26: Nango refuses the key, and the key is not in the log
--- http_config
    nango_environment prod {
        api        $TEST_NGINX_NANGO_API;
        api_public https://nango.example.com;
        api_key    data:b3a1c0de-0000-4000-8000-00000000ffff;
    }
--- config eval: $::Config
--- request
POST /session
--- more_headers
X-User: 42
--- error_code: 502
--- error_log
check the api_key of this environment
--- no_error_log
00000000ffff
[alert]
[crit]



=== TEST 27: over the rate limit: Nango's own time, and nothing more is sent
--- init
NangoTest::fault('"status":429,"retry_after":7')
--- config eval: $::Config
--- request eval
['POST /session', 'POST /session', 'GET /_sim/requests?path=/connect/sessions']
--- more_headers eval
['X-User: 42', 'X-User: 43', '']
--- error_code eval
[429, 429, 200]
--- response_headers eval
["Retry-After: 7\nX-Nango-Error: rate_limited",
 "X-Nango-Error: rate_limited", '']
--- response_body_like eval
['rate_limited', 'rate_limited', '"count":1']
--- error_log
is over its rate limit; nothing is sent to it for 7 s



=== TEST 28: Retry-After 0 counts as 1
--- init
NangoTest::fault('"status":429,"retry_after":0')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[429]
--- response_headers eval
['Retry-After: 1']
--- error_log
nothing is sent to it for 1 s



=== TEST 29: Nango fails
--- init
NangoTest::fault('"status":500')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[502]
--- error_log
answered 500, not a session



=== TEST 30: Nango answers with broken JSON
--- init
NangoTest::fault('"bad_json":true')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[502]
--- error_log
answered 201, not a session



=== TEST 31: or with another type
--- init
NangoTest::fault('"content_type":"text/html"')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[502]
--- error_log
answered 201, not a session



=== TEST 32: Nango is cut off in the middle of its answer
--- init
NangoTest::fault('"cut_after":200')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[503]
--- response_headers eval
['X-Nango-Error: nango_unavailable']
--- error_log
/connect/sessions failed:



=== TEST 33: or in the middle of its body
--- init
NangoTest::fault('"cut_after":2100')
--- config eval: $::Config
--- request
POST /session
--- more_headers
X-User: 42
--- error_code: 503
--- response_headers
X-Nango-Error: nango_unavailable
--- error_log
/connect/sessions failed:



=== TEST 34: Nango does not answer in time
--- init
NangoTest::fault('"hang":true')
--- http_config eval
qq{
    nango_environment prod {
        api         \$TEST_NGINX_NANGO_API;
        api_public  https://nango.example.com;
        api_key     data:$NangoTest::API_KEY;
        api_timeout 200ms;
    }
}
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[504]
--- response_headers eval
['X-Nango-Error: nango_timeout']
--- error_log
/connect/sessions: no answer after



=== TEST 35: Nango is not there
--- http_config eval
qq{
    nango_environment prod {
        api        http://127.0.0.1:1;
        api_public https://nango.example.com;
        api_key    data:$NangoTest::API_KEY;
    }
}
--- config eval: $::Config
--- request
POST /session
--- more_headers
X-User: 42
--- error_code: 503
--- response_headers
X-Nango-Error: nango_unavailable
--- error_log
http://127.0.0.1:1/connect/sessions failed: Couldn't connect to server



=== TEST 36: a redirect of Nango's is not followed
--- init
NangoTest::fault('"status":302,"headers":{"Location":"http://127.0.0.1:1/"}')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[502]
--- error_log
answered 302, not a session



=== TEST 37: a huge answer is not read to its end
--- init
NangoTest::fault('"huge":10000000')
--- config eval: $::Config
--- request eval
['POST /session']
--- more_headers eval
['X-User: 42']
--- error_code eval
[502]
--- error_log
the reply is too large



=== TEST 38: exactly the same session is reused
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session_reuse 30s;
        nango_session;
    }
EOF
--- request eval
['POST /session', 'POST /session',
 'GET /_sim/requests?path=/connect/sessions']
--- more_headers eval
['X-User: 42', 'X-User: 42', '']
--- response_body_like eval
['sessionToken', 'sessionToken', '"count":1']



=== TEST 39: another caller's is not, nor is another session of the same
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
EOF
--- request eval
['POST /session', 'POST /session',
 "POST /session\n" . '{"integration":"github"}',
 'GET /_sim/requests?path=/connect/sessions']
--- more_headers eval
['X-User: 42', 'X-User: 43',
 "X-User: 42\nContent-Type: application/json", '']
--- response_body_like eval
['sessionToken', 'sessionToken', 'sessionToken', '"count":3']



=== TEST 40: error_page makes nothing else of an error
--- config
    error_page 401 403 405 502 503 504 =200 /nothing;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
--- request
POST /session
--- error_code: 401
--- response_headers
X-Nango-Error: owner_required



=== TEST 41: the log variables, and no token in the log
--- http_config eval
qq{
    nango_environment prod {
        api        \$TEST_NGINX_NANGO_API;
        api_public https://nango.example.com;
        api_key    data:$NangoTest::API_KEY;
    }
    log_format nango '\$nango_result \$nango_api_status \$nango_api_time '
                     '\$nango_event_type';
}
--- config
    location = /session {
        access_log logs/error.log nango;
        nango_owner end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session;
    }
--- request
POST /session
--- more_headers
X-User: 42
--- error_log eval
qr/^ok 201 0\.\d{3} -$/m
--- no_error_log
nango_connect_session_
[alert]
[crit]



=== TEST 42: behind auth_request
--- config eval
<<'EOF' . $::Sim;
    location = /user {
        add_header X-Authenticated-User 42 always;
        return 204;
    }
    location = /auth {
        internal;
        proxy_pass              http://127.0.0.1:$TEST_NGINX_SERVER_PORT/user;
        proxy_pass_request_body off;
        proxy_set_header        Content-Length "";
    }
    location = /session {
        auth_request     /auth;
        auth_request_set $user $upstream_http_x_authenticated_user;
        nango_owner      end_user_id $user;
        nango_session_reuse off;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- response_body_like eval
['sessionToken', ::seen('{"tags":{"end_user_id":"42"}}')]



=== TEST 43: auth_request refuses: its answer, and Nango is not asked
--- config eval
<<'EOF' . $::Sim;
    location = /auth { return 401; }
    location = /session {
        auth_request /auth;
        nango_owner  end_user_id $http_x_user;
        nango_session;
    }
EOF
--- request eval: [@::Steps]
--- more_headers eval
['X-User: 42', '']
--- error_code eval
[401, 200]
--- response_body_like eval
['', '"count":0']



=== TEST 44: behind auth_basic
--- user_files
>>> users
ann:{PLAIN}secret
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        auth_basic           app;
        auth_basic_user_file ../html/users;
        nango_owner          end_user_id $remote_user;
        nango_session_reuse  off;
        nango_session;
    }
EOF
--- request eval
[@::Steps, 'POST /session']
--- more_headers eval
['Authorization: Basic YW5uOnNlY3JldA==', '',
 'Authorization: Basic YW5uOndyb25n']
--- error_code eval
[200, 200, 401]
--- response_body_like eval
['sessionToken', ::seen('{"tags":{"end_user_id":"ann"}}'), '']



=== TEST 45: satisfy any passes nobody without an owner
--- config
    location = /session {
        satisfy any;
        allow all;
        auth_basic app;
        auth_basic_user_file ../html/none;
        nango_owner end_user_id $remote_user;
        nango_session;
    }
--- request
POST /session
--- error_code: 401
--- response_headers
X-Nango-Error: owner_required



=== TEST 46: a body of no bytes that says so
--- config eval: $::Config
--- raw_request eval
"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
. "X-User: 42\r\nConnection: close\r\n\r\n"
--- response_body_like: sessionToken



=== TEST 47: one odd Retry-After does not stop an account for good
--- init
NangoTest::fault('"status":429,"retry_after":99999999')
--- config eval: $::Config
--- request
POST /session
--- more_headers
X-User: 42
--- error_code: 429
--- response_headers
Retry-After: 3600
--- error_log
nothing is sent to it for 3600 s
