# nango_permit: what a caller may do besides looking.

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

# The three endpoints under a permission.
sub endpoints {
    my ($permit) = @_;

    return <<"EOF" . $::Sim;
    location = /session {
        nango_owner end_user_id \$http_x_user;
        $permit
        nango_session;
    }
    location = /reconnect {
        nango_owner end_user_id \$http_x_user;
        $permit
        nango_reconnect;
    }
    location = /connections {
        nango_owner end_user_id \$http_x_user;
        $permit
        nango_connections;
    }
EOF
}

# One of each; those that are permitted find nothing.
our @Each = (
    'POST /session', "POST /reconnect\n{\"integration\":\"github\"}",
    'GET /connections', "POST /connections\n{\"id\":\"0\"}",
    'DELETE /connections?id=0',
);

our $Json = "X-User: 42\nContent-Type: application/json";

sub codes {
    my ($connect, $reconnect, $verify, $delete) = @_;

    return [$connect ? 200 : 403, $reconnect ? 404 : 403, 200,
            $verify ? 404 : 403, $delete ? 404 : 403];
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

=== TEST 1: without it everything
--- config eval: ::endpoints('')
--- request eval: [@::Each]
--- more_headers eval
[($::Json) x 5]
--- error_code eval: ::codes(1, 1, 1, 1)



=== TEST 2: each alone: connect
--- config eval: ::endpoints('nango_permit connect;')
--- request eval: [@::Each]
--- more_headers eval
[($::Json) x 5]
--- error_code eval: ::codes(1, 0, 0, 0)



=== TEST 3: reconnect
--- config eval: ::endpoints('nango_permit reconnect;')
--- request eval: [@::Each]
--- more_headers eval
[($::Json) x 5]
--- error_code eval: ::codes(0, 1, 0, 0)



=== TEST 4: verify
--- config eval: ::endpoints('nango_permit verify;')
--- request eval: [@::Each]
--- more_headers eval
[($::Json) x 5]
--- error_code eval: ::codes(0, 0, 1, 0)



=== TEST 5: delete
--- config eval: ::endpoints('nango_permit delete;')
--- request eval: [@::Each]
--- more_headers eval
[($::Json) x 5]
--- error_code eval: ::codes(0, 0, 0, 1)



=== TEST 6: several, of one line and of two
--- config eval: ::endpoints('nango_permit connect delete; nango_permit verify;')
--- request eval: [@::Each]
--- more_headers eval
[($::Json) x 5]
--- error_code eval: ::codes(1, 0, 1, 1)



=== TEST 7: what a refused caller is told, and Nango is not asked
--- config eval: ::endpoints('nango_permit delete;')
--- request eval
[$::Each[0], $::Each[3], 'GET /_sim/requests']
--- more_headers eval
[$::Json, $::Json, '']
--- error_code eval
[403, 403, 200]
--- response_body_like eval
[('^\{"error":\{"code":"not_permitted","message":'
  . '"The caller may not do this"\}\}$') x 2, '"count":0']
--- raw_response_headers_like eval
[('\nX-Nango-Error: not_permitted\s') x 2, '']



=== TEST 8: a condition: what is empty or "0" does not hold
--- config eval: ::endpoints('nango_permit connect if=$http_x_admin;')
--- request eval
[('POST /session') x 6]
--- more_headers eval
["X-User: 42\nX-Admin: 1", "X-User: 42\nX-Admin: no", 'X-User: 42',
 "X-User: 42\nX-Admin: 0", "X-User: 42\nX-Admin: 00", "X-Admin: 1"]
--- error_code eval
[200, 200, 403, 403, 200, 401]



=== TEST 9: lines with and without a condition
--- config eval
::endpoints('nango_permit connect; '
    . 'nango_permit if=$http_x_admin delete verify; '
    . 'nango_permit verify if=$http_x_support;')
--- request eval
[@::Each, @::Each, @::Each]
--- more_headers eval
[($::Json) x 5, ("$::Json\nX-Admin: 1") x 5, ("$::Json\nX-Support: 1") x 5]
--- error_code eval
[@{::codes(1, 0, 0, 0)}, @{::codes(1, 0, 1, 1)}, @{::codes(1, 0, 1, 0)}]



=== TEST 10: a level's own lines replace those above
--- config eval
<<'EOF' . $::Sim;
    nango_permit verify;

    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
    location = /own {
        nango_owner end_user_id $http_x_user;
        nango_permit delete;
        nango_connections;
    }
    location /nested/ {
        nango_permit reconnect delete;
        location = /nested/connections {
            nango_owner end_user_id $http_x_user;
            nango_connections;
        }
    }
EOF
--- request eval
['POST /session', "POST /own\n{\"id\":\"0\"}", 'DELETE /own?id=0',
 "POST /nested/connections\n{\"id\":\"0\"}", 'DELETE /nested/connections?id=0']
--- more_headers eval
[($::Json) x 5]
--- error_code eval
[403, 403, 404, 403, 404]



=== TEST 11: what auth_request says
--- config eval
<<'EOF' . $::Sim;
    location = /role {
        add_header X-Role $http_x_role;
        return 204;
    }
    location = /auth {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/role;
    }

    location = /connections {
        auth_request /auth;
        auth_request_set $role $upstream_http_x_role;
        nango_owner  end_user_id $http_x_user;
        nango_permit delete if=$role;
        nango_connections;
    }
EOF
--- request eval
['DELETE /connections?id=0', 'DELETE /connections?id=0']
--- more_headers eval
["X-User: 42\nX-Role: admin", 'X-User: 42']
--- error_code eval
[404, 403]



=== TEST 12: in an if and in limit_except of the location
--- config eval
<<'EOF' . $::Sim;
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_permit verify;
        if ($http_x_admin) {
            nango_connections;
        }
        limit_except GET POST { allow all; }
        nango_connections;
    }
EOF
--- request eval
["POST /connections\n{\"id\":\"0\"}", 'DELETE /connections?id=0',
 'DELETE /connections?id=0']
--- more_headers eval
[$::Json, $::Json, "$::Json\nX-Admin: 1"]
--- error_code eval
[404, 403, 403]



=== TEST 13: an action that there is not
--- config
    nango_permit connect remove;
--- must_die
--- error_log
invalid parameter "remove"; there are "connect", "reconnect", "verify", "delete" and one "if=$variable"



=== TEST 14: no action
--- config
    nango_permit if=$http_x_admin;
--- must_die
--- error_log
"nango_permit" directive needs an action: "connect", "reconnect", "verify" or "delete"



=== TEST 15: two conditions
--- config
    nango_permit connect if=$http_x_a if=$http_x_b;
--- must_die
--- error_log
invalid parameter "if=$http_x_b"



=== TEST 16: an empty condition
--- config
    nango_permit connect if=;
--- must_die
--- error_log
invalid parameter "if="



=== TEST 17: a variable that there is not
--- config
    nango_permit connect if=$no_such_variable;
--- must_die
--- error_log
unknown "no_such_variable" variable



=== TEST 18: nothing at all
--- config
    nango_permit;
--- must_die
--- error_log
invalid number of arguments in "nango_permit" directive



=== TEST 19: a condition that would always hold
--- config
    nango_permit connect if=!$http_x_b;
--- must_die
--- error_log
invalid parameter "if=!$http_x_b"
