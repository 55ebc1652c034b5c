# One fault on purpose, that of the environment; whether it is reported is for
# t/sanitize/run to say. What nginx answers, if it still does, is of no concern.

use FindBin;
use lib "$FindBin::Bin/../lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

env_to_nginx('TEST_NGINX_PLANTED');
add_block_preprocessor(\&NangoTest::prepare);
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a planted fault
--- config
    location = /fault { planted $TEST_NGINX_PLANTED; }
--- request
GET /fault
--- error_code: 204
