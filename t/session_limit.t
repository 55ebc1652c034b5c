# nango_session_limit: how often one owner may make us ask Nango.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2');

our $Sim = <<'EOF';
    location /_sim/ {
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

# One a minute: what a test takes changes nothing.
sub limited {
    my ($limit) = @_;

    return <<"EOF" . $::Sim;
    nango_session_reuse off;

    location = /session {
        nango_owner end_user_id \$http_x_user;
        $limit
        nango_session;
    }
EOF
}

our $Json = "X-User: 42\nContent-Type: application/json";

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

=== TEST 1: one at once, and Nango is not asked for the next
--- config eval: ::limited('nango_session_limit rate=1r/m;')
--- request eval
['POST /session', 'POST /session', 'GET /_sim/requests']
--- more_headers
X-User: 42
--- error_code eval
[200, 429, 200]
--- raw_response_headers_like eval
['', '(?s)\nRetry-After: (?:60|59|5\d)\s.*\nX-Nango-Error: rate_limited\s',
 '']
--- response_body_like eval
['sessionToken', '"code":"rate_limited"', '"count":1\b']



=== TEST 2: the log says it, without the owner
--- config eval: ::limited('nango_session_limit rate=1r/m;')
--- request eval
['POST /session', 'POST /session']
--- more_headers
X-User: secret-user
--- error_code eval
[200, 429]
--- no_error_log
end_user_id is secret-user
[alert]



=== TEST 3: a burst more
--- config eval: ::limited('nango_session_limit rate=1r/m burst=3;')
--- request eval
[('POST /session') x 6]
--- more_headers
X-User: 42
--- error_code eval
[200, 200, 200, 200, 429, 429]



=== TEST 4: on by default, with a burst of 20
# Any of the last nine may be in time for a new one; Nango has seen how many
# were: of 30 at least five were refused.
--- config eval: ::limited('')
--- request eval
[('POST /session') x 30, 'GET /_sim/requests']
--- more_headers
X-User: 42
--- error_code_like eval
[('200') x 21, ('200|429') x 9, '200']
--- response_body_like eval
[('') x 30, '"count":2[1-5]\b']



=== TEST 5: off
--- config eval: ::limited('nango_session_limit off;')
--- request eval
[('POST /session') x 30]
--- more_headers
X-User: 42
--- error_code eval
[(200) x 30]



=== TEST 6: each owner has its own
--- config eval: ::limited('nango_session_limit rate=1r/m;')
--- request eval
[('POST /session') x 6]
--- more_headers eval
['X-User: 42', 'X-User: 43', 'X-User: 42', 'X-User: 43', 'X-User: 4',
 'X-User: 42 ']
--- error_code eval
[200, 200, 429, 429, 200, 429]



=== TEST 7: of several tags all count, whatever their order
--- config eval
<<'EOF' . $::Sim;
    nango_session_reuse off;
    nango_session_limit rate=1r/m;

    location = /a {
        nango_owner end_user_id $http_x_user;
        nango_owner organization_id $http_x_org;
        nango_session;
    }
    location = /b {
        nango_owner organization_id $http_x_org;
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
    location = /swapped {
        nango_owner end_user_id $http_x_org;
        nango_owner organization_id $http_x_user;
        nango_session;
    }
    location = /user {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
EOF
--- request eval
['POST /a', 'POST /b', 'POST /a', 'POST /swapped', 'POST /user']
--- more_headers eval
["X-User: 42\nX-Org: acme", "X-User: 42\nX-Org: acme",
 "X-User: 42\nX-Org: other", "X-User: 42\nX-Org: acme",
 "X-User: 42\nX-Org: acme"]
--- error_code eval
[200, 429, 200, 200, 200]



=== TEST 8: each environment has its own
--- http_config eval
my $rest = qq{
        api        \$TEST_NGINX_NANGO_API;
        api_public https://nango.example.com;
        connect_ui https://connect.nango.dev;
        api_key    data:$NangoTest::API_KEY;
        reconcile  off;
};
"nango_environment a { $rest account one; }
 nango_environment b { $rest account two; }"
--- config
    nango_session_reuse off;
    nango_session_limit rate=1r/m;
    nango_owner end_user_id $http_x_user;

    location = /a { nango_session a; }
    location = /b { nango_session b; }
--- request eval
['POST /a', 'POST /b', 'POST /a', 'POST /b']
--- more_headers
X-User: 42
--- error_code eval
[200, 200, 429, 429]



=== TEST 9: a token that is used again costs nothing
--- config eval
<<'EOF' . $::Sim;
    nango_session_limit rate=1r/m;

    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
EOF
--- request eval
[('POST /session') x 4, "POST /session\n{\"integration\":\"github\"}"]
--- more_headers eval
[($::Json) x 5]
--- error_code eval
[200, 200, 200, 200, 429]



=== TEST 10: what is refused before it would be asked costs nothing
--- config eval: ::limited('nango_integrations github; nango_session_limit rate=1r/m;')
--- request eval
["POST /session\n{\"integration\":\"slack\"}", "POST /session\n{",
 'GET /session', 'POST /session', 'POST /session']
--- more_headers eval
[($::Json) x 5]
--- error_code eval
[403, 400, 405, 200, 429]



=== TEST 11: a check counts, and counts together with sessions
--- config eval
<<'EOF' . $::Sim;
    nango_session_reuse off;
    nango_session_limit rate=1r/m burst=1;
    nango_owner end_user_id $http_x_user;

    location = /session     { nango_session; }
    location = /connections { nango_connections; }
EOF
--- request eval
["POST /connections\n{\"integration\":\"github\",\"connection_id\":\"x\"}",
 'POST /session',
 "POST /connections\n{\"integration\":\"github\",\"connection_id\":\"x\"}",
 'GET /connections', "POST /connections\n{\"id\":\"0\"}",
 'GET /_sim/requests']
--- more_headers eval
[($::Json) x 5, '']
--- error_code eval
[404, 200, 429, 200, 404, 200]
--- response_body_like eval
['', '', 'rate_limited', '', '', '"count":2\b']



=== TEST 12: locations with other limits do not spoil each other's
--- config eval
<<'EOF' . $::Sim;
    nango_session_reuse off;
    nango_owner end_user_id $http_x_user;

    location = /slow { nango_session_limit rate=1r/m; nango_session; }
    location = /fast { nango_session_limit rate=10r/s burst=5; nango_session; }
    location = /same { nango_session_limit rate=1r/m; nango_session; }
    location = /more { nango_session_limit rate=1r/m burst=1; nango_session; }
EOF
--- request eval
['POST /slow', 'POST /fast', 'POST /fast', 'POST /slow', 'POST /same',
 'POST /more', 'POST /more', 'POST /more']
--- more_headers
X-User: 42
--- error_code eval
[200, 200, 200, 429, 429, 200, 200, 429]



=== TEST 13: inherited, and replaced as a whole
--- config eval
<<'EOF' . $::Sim;
    nango_session_reuse off;
    nango_session_limit rate=1r/m burst=2;
    nango_owner end_user_id $http_x_user;

    location = /inherited { nango_session; }
    location = /own       { nango_session_limit rate=2r/m; nango_session; }
    location = /off       { nango_session_limit off; nango_session; }
EOF
--- request eval
[('POST /inherited') x 4, ('POST /own') x 2, ('POST /off') x 4]
--- more_headers
X-User: 42
--- error_code eval
[200, 200, 200, 429, 200, 429, 200, 200, 200, 200]



=== TEST 14: rates
--- config
    location = /a { nango_session_limit rate=1000r/s; }
    location = /b { nango_session_limit burst=10000 rate=60000r/m; }
    location = /c { nango_session_limit burst=0; }
    location = /d { nango_session_limit rate=1r/m burst=1; }
--- request
GET /nothing
--- error_code: 404



=== TEST 15: too fast
--- config
    nango_session_limit rate=1001r/s;
--- must_die
--- error_log
invalid rate "rate=1001r/s"; write it as "rate=30r/m" or "rate=2r/s", 1000r/s at most



=== TEST 16: too fast by the minute
--- config
    nango_session_limit rate=60001r/m;
--- must_die
--- error_log
invalid rate "rate=60001r/m"



=== TEST 17: no rate
--- config
    nango_session_limit rate=0r/s;
--- must_die
--- error_log
invalid rate "rate=0r/s"



=== TEST 18: without a unit
--- config
    nango_session_limit rate=30;
--- must_die
--- error_log
invalid rate "rate=30"



=== TEST 19: nothing but a unit
--- config
    nango_session_limit rate=r/m;
--- must_die
--- error_log
invalid rate "rate=r/m"



=== TEST 20: a burst that is none
--- config
    nango_session_limit burst=-1;
--- must_die
--- error_log
invalid burst "burst=-1"; it is a number from 0 to 10000



=== TEST 21: too large a burst
--- config
    nango_session_limit burst=10001;
--- must_die
--- error_log
invalid burst "burst=10001"



=== TEST 22: off beside something
--- config
    nango_session_limit off burst=1;
--- must_die
--- error_log
invalid parameter "off"; there are "rate=" and "burst=", or "off" alone



=== TEST 23: twice
--- config
    nango_session_limit off;
    nango_session_limit rate=1r/s;
--- must_die
--- error_log
"nango_session_limit" directive is duplicate



=== TEST 24: the same parameter twice
--- config
    nango_session_limit rate=1r/s rate=2r/s;
--- must_die
--- error_log
"rate=2r/s" is given twice

