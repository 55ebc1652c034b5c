# Files and values that nango_store and nango_environment cannot use.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a store without a path
--- http_config
    nango_store size=1g;
--- config
--- must_die
--- error_log
"nango_store" directive needs the path of a directory


=== TEST 2: a store that is a file, which nginx would give to its workers
--- http_config
    nango_store $TEST_NGINX_SERVER_ROOT/conf/nginx.conf;
--- config
--- must_die
--- error_log
conf/nginx.conf" is no directory


=== TEST 3: a directory as a certificate
--- http_config
    nango_environment a { api_trusted_certificate .; api_key data:k; }
--- config
--- must_die
--- error_log
is not a regular file


=== TEST 4: a file without a certificate
--- http_config
    nango_environment a { api_trusted_certificate nginx.conf; api_key data:k; }
--- config
--- must_die
--- error_log
nginx.conf" holds no certificate in PEM


=== TEST 5: 17 signing keys on one line
--- http_config
    nango_environment a {
        webhook_signing_key data:1 data:2 data:3 data:4 data:5 data:6 data:7 data:8
                            data:9 data:10 data:11 data:12 data:13 data:14
                            data:15 data:16 data:17;
    }
--- config
--- must_die
--- error_log
more than 16 signing keys


=== TEST 6: comparing without a pause
--- http_config
    nango_environment a { reconcile 999ms; api_key data:k; }
--- config
--- must_die
--- error_log
the time "999ms" in "reconcile" is too short; it must be 1s at least


=== TEST 7: a time that libcurl does not take
--- http_config
    nango_environment a { api_timeout 25d; api_key data:k; }
--- config
--- must_die
--- error_log
the time "25d" in "api_timeout" is too long; it must be 24d at most


=== TEST 8: the same of a subscriber
--- http_config
    nango_store nango_cache;
    nango_environment a {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ timeout=25d max_age=60d;
    }
--- config
--- must_die
--- error_log
the time "25d" in "deliver" is too long; it must be 24d at most
