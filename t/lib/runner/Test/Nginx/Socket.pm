package Test::Nginx::Socket;

# A runner for tests written in the language of openresty's Test::Nginx::Socket,
# for systems that do not have that module. Put its directory on perl's path
# only where the real one is missing: prove -It/lib/runner t/
#
# It promises the same verdict on the same test file, and is stricter in one
# respect: what a test cannot see by itself (an [alert] in the log, a crash, a
# hung stop, octets behind a response) fails the file. Such faults are told on
# standard error and in the exit status; see Test::Nginx::Util.
#
# It leaves out HTTP/2 and 3, UDP mocks, curl, SystemTap, benchmarks and leak
# tests, and stops when a test asks for one of them.
#
# This file has the course of a test; the others have what happens on it.

use v5.10.1;
use strict;
use warnings;

use Test::Base -base;

use File::Path ();
use HTTP::Response ();
use List::Util qw( shuffle );
use Time::HiRes qw( sleep );

use Test::Nginx::Check;
use Test::Nginx::Client;
use Test::Nginx::Prefix;
use Test::Nginx::Request;
use Test::Nginx::Server;
use Test::Nginx::TcpMock;
use Test::Nginx::Util;

our @EXPORT = qw(
    run_tests plan
    repeat_each no_shuffle no_long_string no_root_location no_nginx_manager
    master_on master_off master_process_enabled workers worker_connections
    log_level timeout use_hup check_accum_error_log config_preamble
    env_to_nginx server_name server_addr server_root html_dir server_port
    server_port_for_client is_str bail_out add_block_preprocessor
    add_cleanup_handler add_test_cleanup_handler add_response_body_check
);

my @unsupported = qw(
    http2 http3 curl curl_options curl_error curl_protocol charset
    request_eval response_body_eval write_resp_body_file
    udp_listen udp_reply udp_query stap stap_out stap_out_like
    stap_out_unlike tcp_query_auto_timeout
);

# The configuration that runs, for tests that bring none.
my $running_config;

my $owner = $$;


sub set_http_config_filter ($) {
    $FilterHttpConfig = shift;
}


sub add_response_body_check ($) {
    push @ResponseBodyChecks, shift;
}


sub run_tests () {
    $NginxVersion = get_nginx_version();
    $ENV{TEST_NGINX_SERVER_PORT} //= $ServerPort;

    my @blocks = Test::Base::blocks();
    @blocks = shuffle @blocks unless $Test::Nginx::Util::NoShuffle;

    for my $block (@blocks) {
        $_->($block) for @Test::Nginx::Util::BlockPreprocessors;
        $block->set_value(name => "$0 " . $block->name);

        run_block($block);

        $_->($block) for @Test::Nginx::Util::TestCleanupHandlers;
    }

    $_->() for @Test::Nginx::Util::CleanupHandlers;
}


sub run_block {
    my ($block) = @_;
    my $name = $block->name;

    return if defined $block->SKIP;

    for my $section (grep { defined $block->$_ } @unsupported) {
        bail_out "$name - this runner knows no section $section";
    }

    $Test::Nginx::Util::RandPorts = {};

    my ($count, $reason) = skip_of($block);

    if (defined $count) {
        for (1 .. repeat_each()) {
            SKIP: { Test::More::skip("$name - $reason", $count) }
        }

        return;
    }

    local $Test::Nginx::Util::LogLevel
        = $block->log_level || $Test::Nginx::Util::LogLevel;

    return run_dying_block($block) if defined $block->must_die;

    start_for($block);
    $Test::Nginx::Util::PrevBlock = $block;

    if (my $code = $block->init) {
        eval_section($block, 'init', $code);
    }

    # a test on the server of the one before sees that one's log, too
    $Test::Nginx::Util::ErrLogFilePos = 0;

    for my $repeat (0 .. repeat_each() - 1) {
        ($count, $reason) = todo_of($block);

        if (defined $count) {
            TODO: { Test::More::todo_skip("$name - $reason", $count) }
            next;
        }

        write_user_files($block) if $repeat > 0;

        start_tcp_mock($block);
        run_requests($block, $repeat);
        check_tcp_query($block);
        stop_tcp_mocks();
    }

    watch_error_log($block);

    return if $NoNginxManager;

    note_processes();
    fault($name, 'nginx is gone') if server_is_gone();
}


# Sees to it that the server that the block wants is running.

sub start_for {
    my ($block) = @_;
    my $name = $block->name;

    my $config = expand_env_in_text($block->config, $name,
                                    $Test::Nginx::Util::RandPorts);

    return if $NoNginxManager;

    if (!defined $config) {
        bail_out "$name - there is no config, nor one of a test before"
            unless defined $running_config;
        return;
    }

    return if !$Test::Nginx::Util::ForceRestartOnTest
              && defined $running_config && $running_config eq $config;

    $running_config = $config;

    if ($Test::Nginx::Util::UseHup) {
        # the log goes away with the old configuration
        my $prev = $Test::Nginx::Util::PrevBlock;
        watch_error_log($prev) if $prev;

        if (reload_server($block, $config)) {
            restart_watch();
            check_shutdown_error_log($prev) if $prev;
            return;
        }
    }

    finish_previous();
    restart_watch();
    $Test::Nginx::Util::PrevBlock = $block;
    start_server($block, $config);
}


# Stops the server; what it writes then is the previous block's affair.

sub finish_previous {
    my $prev = $Test::Nginx::Util::PrevBlock;

    stop_server($prev ? $prev->name : $0);

    return unless $prev;

    watch_error_log($prev);
    check_shutdown_error_log($prev);
}


sub run_dying_block {
    my ($block) = @_;
    my $name = $block->name;

    # neither would let the exit status through
    local $Test::Nginx::Util::UseValgrind;
    local $Test::Nginx::Util::UseHup;

    my $config = expand_env_in_text($block->config, $name,
                                    $Test::Nginx::Util::RandPorts)
                 // bail_out "$name - must_die needs a config";

    finish_previous();
    restart_watch();
    write_prefix($block, $config);

    $Test::Nginx::Util::PrevBlock = $block;
    $Test::Nginx::Util::ErrLogFilePos = 0;
    $running_config = $config;

    for my $repeat (0 .. repeat_each() - 1) {
        my $status = run_dying_server($block);
        my $must = $block->must_die;

        if ($status & 127 || $status >> 8 == 127) {
            fail("$name - nginx was killed, or never ran ($status)");

        } elsif ($must =~ /^\s*\d+\s*$/) {
            Test::More::is($status >> 8, $must + 0, "$name - exit status");

        } else {
            isnt($status, 0, "$name - nginx does not start");
        }

        check_error_log($block, $repeat);
    }

    watch_error_log($block);
}


sub run_requests {
    my ($block, $repeat) = @_;
    my $name = $block->name;

    my @requests = requests_of_block($block);
    my $pipelined = $block->pipelined_requests;
    my $several = @requests > 1 || !!$pipelined;
    my $index = 0;

    for my $request (@requests) {
        my $rest = exchange($block, $request);
        my $is_head = $request->[0]{value} =~ /^\s*HEAD\s/;

        # pipelined requests share one exchange
        for (1 .. ($pipelined ? @$pipelined : 1)) {
            if (!defined $block->ignore_response) {
                my ($res, $header);

                ($res, $header, $rest)
                    = defined $block->http09
                      ? (HTTP::Response->new(200, 'OK', [], $rest), '', '')
                      : parse_response($block, $rest // '', $is_head);

                check_response($block, $res, $header, $index, $several,
                               $repeat);
            }

            sleep $block->wait if $block->wait;
            check_error_log($block, $repeat);
            check_access_log($block) if !defined $block->ignore_response;

            $index++;
        }

        next if defined $block->ignore_response || !length($rest // '');

        # raw octets may well be more than one request
        if (defined $block->raw_request) {
            warn "WARNING: $name - octets behind the response: \"$rest\"\n";

        } else {
            fault($name, "octets behind the response: \"$rest\"");
        }
    }
}


# How many assertions to skip, and why; nothing to run the test.

sub skip_of {
    my ($block) = @_;
    my $name = $block->name;

    if (defined(my $spec = $block->skip_eval)) {
        my ($count, $code) = $spec =~ /^\s*(\d+)\s*:\s*(.*)/s
            or bail_out "$name - bad skip_eval: $spec";

        return ($count, 'skip_eval')
            if eval_section($block, 'skip_eval', $code);
    }

    my $openssl = $Test::Nginx::Util::OpenSSLVersion;

    for (['skip_nginx', $NginxVersion], ['skip_nginx2', $NginxVersion],
         ['skip_openssl', $openssl])
    {
        my ($section, $version) = @$_;
        my $spec = $block->$section // next;

        my ($count, $condition) = $spec =~ /^\s*(\d+)\s*:\s*(.*?)\s*$/s
            or bail_out "$name - bad $section: $spec";
        my ($applies, $reason)
            = version_condition($block, $section, $condition, $version);

        return ($count, $reason) if $applies;
    }

    return;
}


# The same for assertions that are known to fail.

sub todo_of {
    my ($block) = @_;
    my $name = $block->name;

    if (defined(my $spec = $block->todo)) {
        return $spec =~ /^\s*(\d+)\s*:\s*(.*)/s
               ? ($1, $2) : bail_out "$name - bad todo: $spec";
    }

    my $condition = $block->todo_nginx // return;
    my ($applies, $reason) = version_condition($block, 'todo_nginx',
                                               $condition, $NginxVersion);
    return $applies ? (1, $reason) : ();
}


# "< 1.2.3", optionally "or >= 1.3.0" (or "and"), optionally ": reason".

sub version_condition {
    my ($block, $section, $text, $version) = @_;

    my $one = qr/([<>]=?)\s*(\d+)\.(\d+)\.(\d+)([a-z]?)/;

    $text =~ /^\s*$one(?:\s*(or|and)\s*$one)?\s*(?::\s*(.*?))?\s*$/s
        or bail_out $block->name . " - bad $section: $text";

    my @first = ($1, $2, $3, $4, $5);
    my ($junction, $reason) = ($6, $12);
    my @second = ($7, $8, $9, $10, $11);

    my $holds = sub {
        my ($op, @numbers) = @_;

        pop @numbers if $numbers[3] eq '';
        my $than = get_canon_version(@numbers);
        my $order = ($version // return 1) <=> $than;

        return $op eq '<' ? $order < 0 : $op eq '<=' ? $order <= 0
               : $op eq '>' ? $order > 0 : $order >= 0;
    };

    my $applies = $holds->(@first);

    if (defined $junction) {
        $applies = $junction eq 'or' ? $applies || $holds->(@second)
                                     : $applies && $holds->(@second);
    }

    return ($applies, $reason || "version $text");
}


# However the file ends, nothing of it may stay behind, and no fault untold.

END {
    if ($$ == $owner) {
        my $status = $?;

        # an impatient second Ctrl-C would leave what the first was to end
        $SIG{$_} = 'IGNORE' for qw( INT TERM HUP );

        stop_tcp_mocks();
        finish_previous()
            if defined $running_config && !$ENV{TEST_NGINX_NO_CLEAN};

        File::Path::remove_tree($ServRoot)
            if $Test::Nginx::Util::Randomize
               && $ServRoot =~ m{/t/servroot_\d+\z};

        my @faults = Test::Nginx::Util::faults();
        Test::More::diag(scalar(@faults) . ' fault(s), see above') if @faults;

        $? = $status || (@faults ? 1 : 0);
    }
}


1;
