# The server around the tests: its configuration, its start and its end.

our @cleaned;

use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value(request => 'GET /default')
        if !defined $block->request && !defined $block->must_die;
    $block->set_value(no_error_log => "[error]\n[alert]")
        if !defined $block->error_log && !defined $block->must_die;
});

add_test_cleanup_handler(sub { push @cleaned, $_[0]->seq_num });

$ENV{TEST_NGINX_RUNNER_WORD} = 'word';
$ENV{RUNNER_VARIABLE} = 'seen';

env_to_nginx('RUNNER_VARIABLE', 'RUNNER_OTHER=word');
master_on();
workers(2);
worker_connections(128);
timeout(5);
log_level('info');
config_preamble('location /preamble { return 200 "preamble"; }');
no_shuffle();
run_tests();

is("@cleaned", '1 2 3 4 5 6 7 8 9 10 11 12 13', 'each test was cleaned up');

__DATA__

=== TEST 1: sections of the configuration, with variables of the environment
--- main_config
timer_resolution 100ms;
--- http_config
map $uri $mapped { default "$TEST_NGINX_RUNNER_WORD"; }
--- config
location /default { return 200 "$mapped $TEST_NGINX_SERVER_PORT\n"; }
--- post_main_config
# $TEST_NGINX_SERVER_ROOT
--- response_body eval
"word $ENV{TEST_NGINX_SERVER_PORT}\n"



=== TEST 2: the preamble, on the server of the test before
--- request
GET /preamble
--- response_body chomp
preamble



=== TEST 3: another name
--- server_name: example.org
--- config
location /default { return 200 "$server_name"; }
--- response_body chomp
example.org



=== TEST 4: a configuration that nginx refuses
--- config
location /default { return 200; nonsense; }
--- suppress_stderr
--- must_die
--- error_log
unknown directive "nonsense"



=== TEST 5: with the exit status it must have
--- config
nonsense;
--- suppress_stderr
--- must_die: 1
--- no_error_log
unknown directive "other"



=== TEST 6: skipped by a version
--- config
nonsense;
--- skip_nginx: 3: > 0.8.0: too new
--- response_body



=== TEST 7: skipped by code
--- skip_eval: 3: 1 == 1
--- config
nonsense;



=== TEST 8: not skipped
--- skip_nginx: 3: < 0.8.0
--- skip_eval: 3: 1 == 2
--- config
location /default { return 200 "run"; }
--- response_body chomp
run



=== TEST 9: known to fail
--- todo: 2: some day
--- config
location /default { return 200 "run"; }
--- error_code: 500



=== TEST 10: code before the start, and before the requests
--- post_setup_server_root
open my $out, '>', html_dir() . '/setup' or die $!;
print $out 'setup';
close $out;
--- init
die 'no setup' unless -f html_dir() . '/setup';
--- config
--- request
GET /setup
--- response_body chomp
setup



=== TEST 11: a server behind the server
--- config
location /default {
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/up;
    proxy_set_header Host up;
}
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_query eval
"GET /up HTTP/1.0\r\nHost: up\r\nConnection: close\r\n\r\n"
--- tcp_reply eval
sub {
    my ($query) = @_;
    return "HTTP/1.0 200 OK\r\n\r\nlength " . length $query;
}
--- response_body chomp
length 49



=== TEST 12: a server that reads and goes
--- config
location /default {
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1;
}
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_shutdown: 1
--- error_code: 502
--- error_log
upstream prematurely closed connection



=== TEST 13: what is written at the end
--- config
location /default { return 200 "end"; }
--- shutdown_error_log
gracefully shutting down
--- no_shutdown_error_log
open socket



=== TEST 14: never run
--- SKIP
--- config
nonsense;
