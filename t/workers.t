# Several workers on one store.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

master_on();
workers(2);

our $Config = <<'EOF';
    location = /webhook { nango_webhook; }

    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
EOF

our @Events = map {
    event('creation', 'true', "c-$_", end_user_id => '42')
} 1 .. 8;

add_block_preprocessor(\&NangoTest::prepare);
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: whoever is asked has seen what was acknowledged
--- config eval: $::Config
--- request eval
[map { (webhook($_), 'GET /connections') } @::Events]
--- more_headers eval
[map { (signature($_), 'X-User: 42') } @::Events]
--- response_body_like eval
[map { (qq("sequence":$_\\}), qq("sequence":$_,)) } 1 .. 8]



=== TEST 2: a repeat is told by whichever worker gets it
--- config eval: $::Config
--- request eval
[map { webhook($::Events[0]) } 1 .. 8]
--- more_headers eval
signature($::Events[0])
--- response_body eval
['{"ack":true,"sequence":1}',
 ('{"ack":true,"sequence":1,"duplicate":true}') x 7]
