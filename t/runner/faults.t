# Plants one fault after the other and asks that the runner sees each: a
# runner that cannot fail is worth nothing.
#
# Every sample is a test file of its own, run by a perl of its own against a
# server of its own. Samples that must pass stand between them, lest the
# faults fail for some other reason. Nothing may be left running behind any.

use strict;
use warnings;

use Cwd qw( abs_path );
use File::Basename qw( dirname );
use File::Temp ();
use IO::Socket::INET ();
use Test::More;
use Time::HiRes qw( sleep );

my $runner = abs_path(dirname(__FILE__) . '/../lib/runner');
my $dir = File::Temp->newdir;
my $root = "$dir/servroot";

$ENV{TEST_NGINX_SERVROOT} = $root;
$ENV{TEST_NGINX_PORT} = free_port();
delete $ENV{$_} for qw(
    TEST_NGINX_SERVER_PORT TEST_NGINX_CLIENT_PORT TEST_NGINX_USE_HUP
    TEST_NGINX_USE_VALGRIND TEST_NGINX_RANDOMIZE TEST_NGINX_NO_CLEAN
    TEST_NGINX_LOAD_MODULES TEST_NGINX_NO_NGINX_MANAGER
);


sub free_port {
    my $sock = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
    return $sock->sockport;
}


# Processes that have a file of this test open: a worker's command line does
# not tell whose it is.

sub left_behind {
    my %left;

    for my $path (glob '/proc/[0-9]*/fd/*') {
        my ($pid) = $path =~ m{^/proc/(\d+)/};
        my $file = readlink $path // next;
        $left{$pid} = 1 if index($file, $root) == 0;
    }

    return keys %left;
}


sub write_sample {
    my ($head, $blocks) = @_;

    open my $out, '>', "$dir/sample.t" or die "$dir/sample.t: $!";
    print $out $head, "run_tests();\n__DATA__\n", $blocks;
    close $out;
}


sub run_sample {
    my ($head, $blocks) = @_;

    write_sample($head, $blocks);

    my $out = qx{$^X '-I$runner' '$dir/sample.t' 2>&1 </dev/null};
    return ($?, $out);
}


my $plain = "use Test::Nginx::Socket 'no_plan';\n";
my $planned = "use Test::Nginx::Socket tests => 2;\n";
my $log = 'open my $log, ">>", "$ServRoot/logs/error.log" or die;';


sub passes {
    my ($name, $blocks, $head) = @_;

    my ($status, $out) = run_sample($head // $plain, $blocks);
    is($status, 0, "passes: $name") or diag($out);
    is(scalar(left_behind()), 0, '  and leaves nothing');
}


sub fails {
    my ($name, $says, $blocks, $head) = @_;

    my ($status, $out) = run_sample($head // $plain, $blocks);
    isnt($status, 0, "fails: $name") or diag($out);
    like($out, $says, '  and says so');
    is(scalar(left_behind()), 0, '  and leaves nothing');
    return $out;
}


# A request for /a, and what a sample adds to it.

sub block {
    my ($sections) = @_;

    return <<'END' . $sections;
=== TEST 1: sample
--- config
location /a { add_header X-A one; return 200 "a\n"; }
location /up { proxy_pass http://unix:/nowhere/up.sock; }
--- request
GET /a
END
}


# A server that answers just so, in the place of nginx.

sub answer {
    my ($reply, $sections) = @_;

    my $port = free_port();

    return (block(<<"END"), "$plain server_port_for_client($port);\n");
--- tcp_listen: $port
--- tcp_reply eval
"$reply"
$sections
END
}


passes('all well', block(<<'END'), $planned);
--- response_body
a
END


# What a test asks for.

fails('the body', qr/not ok 2 .*body/, block(<<'END'));
--- response_body
b
END

fails('the body of a file with a plan', qr/not ok 2/, block(<<'END'), $planned);
--- response_body
b
END

fails('the body, by a pattern', qr/not ok 2/, block(<<'END'));
--- response_body_like: ^b
END

fails('the body, by what it must not be', qr/not ok 2/, block(<<'END'));
--- response_body_unlike: ^a
END

fails('the status', qr/not ok 1 .*status/, block(<<'END'));
--- error_code: 404
END

fails('the status that nobody asked for', qr/got: '404'/, <<'END');
=== TEST 1: sample
--- config
--- request
GET /missing
END

fails('a header\'s value', qr/not ok 2 .*header X-A/, block(<<'END'));
--- response_headers
X-A: two
END

fails('a header that is missing', qr/not ok 2/, block(<<'END'));
--- response_headers
X-B: two
END

fails('a header that is there', qr/not ok 2/, block(<<'END'));
--- response_headers
! X-A
END

fails('a header, by a pattern', qr/not ok 2/, block(<<'END'));
--- response_headers_like
X-A: on
END

fails('the raw header', qr/not ok 2/, block(<<'END'));
--- raw_response_headers_like: X-B
END

fails('a line the log lacks', qr/not ok 2 .*error_log/, block(<<'END'));
--- error_log
no such line
END

passes('a line that the log gets late', block(<<"END"));
--- init
$log
if (!fork) { sleep 1; print \$log "late\n"; close \$log; POSIX::_exit(0) }
--- error_log
late
END

fails('a line that is in the log', qr/not ok 2 .*no_error/, block(<<'END'));
--- no_error_log
http request line
END

fails('parts of the log', qr/not ok 2 .*grep_error_log/, block(<<'END'));
--- grep_error_log eval
qr/http uri: "[^"]*"/
--- grep_error_log_out
http uri: "/b"
END

fails('the access log', qr/not ok 2 .*access_log/, block(<<'END'));
--- access_log
GET /b
END

fails('the log of the stop', qr/not ok 2 .*shutdown/, block(<<'END'));
--- shutdown_error_log
no such line
END

fails('the second of two requests', qr/not ok 4 .*body/, <<'END');
=== TEST 1: sample
--- config
location /a { return 200 "a\n"; }
--- request eval
["GET /a", "GET /a"]
--- response_body eval
["a\n", "b\n"]
END

fails('a server that should die', qr/not ok 1 .*does not start/, <<'END');
=== TEST 1: sample
--- config
--- must_die
END

fails('a death of another kind', qr/not ok 1 .*exit status/, <<'END');
=== TEST 1: sample
--- config
nonsense;
--- must_die: 7
END

fails('fewer tests than planned', qr/planned 9/, block(''),
      "use Test::Nginx::Socket tests => 9;\n");

my $port = free_port();
fails('what the mock was sent', qr/not ok 2 .*TCP query/, <<"END");
=== TEST 1: sample
--- config
location /a { proxy_pass http://127.0.0.1:$port; }
--- tcp_listen: $port
--- tcp_query: GET /b
--- tcp_reply eval
"HTTP/1.0 200 OK\\r\\n\\r\\n"
--- request
GET /a
END


# What no test asks for.

for my $line ('[alert] planted', '[emerg] planted', '[crit] planted',
              '==1==ERROR: AddressSanitizer: planted',
              '==1==ERROR: LeakSanitizer: planted',
              'WARNING: ThreadSanitizer: planted',
              'a.c:1:2: runtime error: planted')
{
    my ($first) = $line =~ /^(.*): planted|(\[\w+\])/ ? $+ : die;

    my $out = fails("in the log: $first", qr/FAULT: .*\Q$line\E/,
                    block(<<"END"), $planned);
--- init
$log print \$log "$line\\n";
--- response_body
a
END

    like($out, qr/^ok 2 /m, '  with its two tests as planned');

    passes("in the log, as the test says: $first", block(<<"END"));
--- init
$log print \$log "$line\\n";
--- error_log
$line
END
}

fails('in the log of the stop', qr/FAULT: .*LeakSanitizer/, block(''), <<"END");
$plain
my \$root = server_root();
add_test_cleanup_handler(sub {
    open my \$log, '>>', "\$root/logs/error.log" or die;
    print \$log "==1==ERROR: LeakSanitizer: planted\\n";
});
END

fails('a crit of nginx itself', qr/FAULT: .*\[crit\]/, block(<<'END'));
--- request
GET /up
--- error_code: 502
END

passes('a crit that is part of the test', block(<<'END'));
--- request
GET /up
--- error_code: 502
--- grep_error_log eval
qr/connect\(\) to \S+ failed/
--- grep_error_log_out
connect() to unix:/nowhere/up.sock failed
END

passes('an emerg of a server that must die', <<'END');
=== TEST 1: sample
--- config
nonsense;
--- must_die
END

fails('a sanitizer\'s report of one that must die', qr/FAULT/, <<"END");
=== TEST 1: sample
--- post_setup_server_root
$log print \$log "==1==ERROR: LeakSanitizer: planted\\n";
--- config
nonsense;
--- must_die
END

fails('a server that is gone', qr/FAULT: .*nginx is gone/, block(<<'END'));
--- init
kill KILL => get_pid_from_pidfile('init');
END

fails('a worker that crashes', qr/FAULT: .*exited on signal 11/,
      block(<<'END'), "$plain master_on();\n");
--- init
my $pid = get_pid_from_pidfile('init');
my $worker;
for (1 .. 100) {
    ($worker) = split ' ', qx(ps -o pid= --ppid $pid);
    last if $worker;
    select undef, undef, undef, 0.05;
}
kill SEGV => $worker;
for (1 .. 100) {
    last if qx(ps -o pid= --ppid $pid) !~ /\b$worker\b/;
    select undef, undef, undef, 0.05;
}
END

fails('a server that hangs', qr/FAULT: .*did not stop/, block(''), <<"END");
$plain
add_test_cleanup_handler(sub {
    kill STOP => Test::Nginx::Util::get_pid_from_pidfile('');
});
END

fails('workers without their master', qr/FAULT: .*did not stop/, block(''),
      <<"END");
$plain
master_on();
workers(2);
add_test_cleanup_handler(sub {
    kill KILL => Test::Nginx::Util::get_pid_from_pidfile('');
});
END


# Answers that are none.

passes('a well-formed answer', answer(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
    . '2\r\na\n\r\n0\r\n\r\n', "--- response_body\na"));

fails('octets behind a body', qr/FAULT: .*behind the response: "b"/, answer(
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab', ''));

fails('octets behind the last chunk', qr/FAULT: .*behind the response/, answer(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
    . '0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n', ''));

fails('a chunk that is cut short', qr/FAULT: .*chunk/, answer(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab', ''));

fails('no last chunk', qr/FAULT: .*chunk/, answer(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n', ''));

fails('no answer at all', qr/not ok 1/, answer('', ''));

fails('an answer that does not end', qr/FAULT: .*no answer within/, answer(
    'HTTP/1.1 200 OK\r\n\r\na', "--- tcp_no_close\n--- timeout: 0.3"));


# Test files that end before their time.

fails('a section that is not known here', qr/Bail out!.*udp_listen/,
      block("--- udp_listen: 1\n"));

fails('no variable of that name', qr/Bail out!.*TEST_NGINX_NONE/,
      "=== TEST 1: sample\n--- config\n\$TEST_NGINX_NONE\n");

fails('code that dies', qr/Bail out!.*init failed: planted/,
      block("--- init: die 'planted'\n"));

fails('a file that dies', qr/planted/, block(''), <<"END");
$plain
add_test_cleanup_handler(sub { die 'planted' });
END

for my $signal (qw( INT TERM )) {
    write_sample($plain, block("--- init: sleep 20\n"));

    defined(my $pid = fork) or die "fork: $!";

    if ($pid == 0) {
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec $^X, "-I$runner", "$dir/sample.t";
    }

    for (1 .. 100) {
        last if -s "$root/logs/nginx.pid";
        sleep 0.05;
    }

    sleep 0.2;
    isnt(scalar(left_behind()), 0, "runs before a SIG$signal");
    kill $signal => $pid;
    waitpid $pid, 0;

    isnt($?, 0, "fails: after a SIG$signal");
    is(scalar(left_behind()), 0, '  and leaves nothing');
}

done_testing();
