# A server that is reloaded from one test to the next, not restarted.

use Test::Nginx::Socket 'no_plan';

use_hup();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: the first start
--- config
location /a { return 200 "one"; }
--- request
GET /a
--- response_body chomp
one



=== TEST 2: another configuration
--- config
location /a { return 200 "two"; }
--- request
GET /a
--- response_body chomp
two
--- error_log
reconfiguring
--- no_error_log
[alert]



=== TEST 3: one that nginx refuses: the old one stays
--- config
location /a { return 200 "three"; nonsense; }
--- reload_fails
--- request
GET /a
--- response_body chomp
two
--- error_log
[emerg]
unknown directive "nonsense"



=== TEST 4: files come and go
--- config
--- user_files
>>> a
four
--- request
GET /a
--- response_body
four
