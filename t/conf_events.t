# nango_events: what nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: whose events, or all of them
--- config
    location = /events { nango_events; }
--- must_die
--- error_log eval
qr/"nango_events" needs to know who is asking: add, for instance, "nango_owner end_user_id \$remote_user;" in .*nginx\.conf:\d+/



=== TEST 2: all of them to anybody
--- config
    location = /events { nango_events all; }
--- error_log eval
qr/\[warn\].*"nango_events" shows the events of all to anybody: there is no "allow", "auth_basic", "auth_request" or "internal" here in .*nginx\.conf:\d+/



=== TEST 3: what keeps them from anybody, also from outside of the location
--- config
    location = /1 { allow 127.0.0.1; deny all; nango_events all; }
    location = /2 { auth_request /auth; nango_events all; }
    location = /3 { auth_basic app; nango_events all; }
    location /4 {
        deny all;
        location = /4/5 { nango_events prod all; }
    }
    location = /auth { return 204; }
--- no_error_log
to anybody



=== TEST 4: what does not
--- config
    auth_basic app;
    location = /1 { auth_basic off; nango_events all; }
--- error_log
to anybody



=== TEST 5: internal
--- config
    location = /1 { internal; nango_events all; }
--- no_error_log
to anybody



=== TEST 6: an owner beside all of them
--- config
    location = /events {
        allow 127.0.0.1;
        nango_owner  end_user_id $uri;
        nango_events all;
    }
--- error_log eval
qr/\[warn\].*"nango_owner" has no effect where "nango_events" shows the events of all in .*nginx\.conf:\d+/



=== TEST 7: one that is not meant for it
--- config
    nango_owner end_user_id $uri;
    location = /events {
        allow 127.0.0.1;
        nango_events all;
    }
--- no_error_log
has no effect



=== TEST 8: an environment of its own
--- config
    location = /events { allow all; nango_events other all; }
--- must_die
--- error_log
there is no nango_environment "other"



=== TEST 9: something else
--- config
    location = /events { allow all; nango_events prod everything; }
--- must_die
--- error_log
invalid parameter "everything"



=== TEST 10: without a store
--- http_config eval
"nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }"
--- config
    location = /events { allow all; nango_events all; }
--- must_die
--- error_log
"nango_events" needs a store



=== TEST 11: only in a location
--- config
    nango_events;
--- must_die
--- error_log
"nango_events" directive is not allowed here



=== TEST 12: said once for a location with if and limit_except
--- config
    location = /events {
        if ($arg_x) { set $y 1; }
        limit_except GET { deny all; }
        nango_events all;
    }
--- grep_error_log eval: qr/shows the events of all/
--- grep_error_log_out
shows the events of all
