package Test::Nginx::Server;

# The processes of the nginx under test: start, reload, stop.
#
# Signals that would end perl go through exit, so that an END block can still
# stop the server. Workers of a dead master are found again, because they are
# taken down while it lives.
#
# Processes are only ever ended by id, and only when the id still belongs to
# the process that was seen under it: by its command line for what a pid file
# of an earlier run names, by its start time for what was started here.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use File::Temp ();
use IO::Socket::INET ();
use POSIX ();
use Time::HiRes qw( sleep time );

use Test::Nginx::Prefix;
use Test::Nginx::Util;

our @EXPORT = qw(
    start_server stop_server reload_server run_dying_server server_is_gone
    note_processes
);

# What was started and has not been seen to end: process id => start time.
my %running;

# The runner's own child, when nginx runs under valgrind and stays one.
my $child;

# A start was tried whose pid file has not been seen.
my $starting;

my $valgrind_out;

# Nothing of this run is there to be reloaded.
my $first_time = 1;

$SIG{$_} = sub { exit 1 } for qw( INT TERM HUP );


sub start_server ($$) {
    my ($block, $config) = @_;
    my $name = $block->name;

    write_prefix($block, $config);
    undef $first_time;

    # The port may still be held by what another test file started.
    my $deadline = time + 30;

    while (1) {
        my ($status, $err) = run_nginx($block);

        if ($status == 0) {
            return note_processes() if wait_for_pid_file();
            $err .= "no pid file appeared\n";
            $status = 1;
        }

        my $log = slurp($Test::Nginx::Util::ErrLogFile);

        if ("$err$log" !~ /Address already in use/ || time > $deadline) {
            print STDERR $err || $log;
            bail_out "$name - cannot start nginx (status $status)";
        }

        truncate $Test::Nginx::Util::ErrLogFile, 0;
        sleep 0.5;
    }
}


# For must_die: the status of a start that should fail.

sub run_dying_server ($) {
    my ($block) = @_;

    my ($status) = run_nginx($block);

    if ($status == 0 && wait_for_pid_file()) {
        note_processes();
        stop_server($block->name);
    }

    $starting = 0;
    return $status;
}


# Returns false when there is nothing running that could reload.

sub reload_server ($$) {
    my ($block, $config) = @_;
    my $name = $block->name;

    return if $first_time;

    my $pid = read_pid() // return;
    return unless is_running($pid);

    my $version = join '', map { ('a' .. 'z')[rand 26] } 1 .. 10;

    note_processes();
    my @workers = grep { $_ != $pid } still_running();

    write_prefix($block, $config, $version);

    kill USR1 => $pid or return;
    sleep $Test::Nginx::Util::TestNginxSleep;
    kill HUP => $pid or return;
    sleep $Test::Nginx::Util::TestNginxSleep * 3;

    if (defined $block->reload_fails) {
        sleep 0.3;
        return 1;
    }

    # Workers of before accept until they have heard of it, which they then say
    # in their titles; after that the new configuration must answer.
    my $deadline = time + 30;

    while (grep { accepts($_) } @workers
           or configuration_version() ne $version)
    {
        if (time > $deadline) {
            fault($name, 'nginx did not take the new configuration');
            last;
        }

        sleep 0.02;
    }

    note_processes();
    return 1;
}


sub accepts {
    my ($worker) = @_;

    return is_running($worker)
           && slurp("/proc/$worker/cmdline") !~ /shutting down/;
}


sub configuration_version () {
    my $sock = IO::Socket::INET->new(
        PeerAddr => $ServerAddr,
        PeerPort => $ServerPort,
        Timeout  => 2,
    ) or return '';

    print $sock "GET /ver HTTP/1.0\r\nHost: Test-Nginx\r\n\r\n";
    my $response = do { local $/; <$sock> } // '';

    return $response =~ /\r\n\r\n(.*)\z/s ? $1 : '';
}


# Ends what runs, gracefully as far as it goes along.

sub stop_server ($) {
    my ($name) = @_;

    wait_for_pid_file() if $starting;
    note_processes();

    my $pid = read_pid();

    kill(($ENV{TEST_NGINX_FAST_SHUTDOWN} ? 'TERM' : 'QUIT'), $pid)
        if defined $pid && $running{$pid};

    # Also when a test has stopped it: a leak check may be what takes long.
    my $limit = timeout() > 5 ? timeout() : 5;
    $limit *= 4 if defined $child;

    wait_for_end($limit);

    if (my @left = still_running()) {
        fault($name, "nginx did not stop within $limit seconds: @left");
        kill KILL => @left;
        wait_for_end(5);
    }

    %running = ();
    unlink $PidFile;

    if (defined $child) {
        waitpid $child, 0;
        undef $child;
    }

    report_valgrind($name);
}


# True when the server that should run does not.

sub server_is_gone () {
    my $pid = read_pid();
    return !defined $pid || !is_running($pid);
}


# Takes down who belongs to the server now. Workers come and go, so this is
# called whenever a test has ended, too.

sub note_processes () {
    my $pid = read_pid() // return;

    if (!$running{$pid}) {
        # The file may be of a run long ago, the id someone else's by now.
        my $command = slurp("/proc/$pid/cmdline");
        return if -d '/proc/self' && index($command, $ConfFile) < 0;
    }

    my @members = ($pid);

    for my $path (glob '/proc/[0-9]*') {
        my ($id) = $path =~ m{(\d+)$};
        my ($state, $parent) = Test::Nginx::Util::process_stat($id);
        push @members, $id if defined $parent && $parent == $pid;
    }

    for (@members) {
        $running{$_} = (Test::Nginx::Util::process_stat($_))[2] // 'unknown';
    }

    $starting = 0;
}


sub still_running () {
    for my $pid (keys %running) {
        my $started = (Test::Nginx::Util::process_stat($pid))[2] // 'unknown';

        delete $running{$pid}
            unless is_running($pid) && $running{$pid} eq $started;
    }

    my @left = sort keys %running;
    return @left;
}


sub wait_for_end {
    my ($limit) = @_;

    my $deadline = time + $limit;
    sleep 0.01 while still_running() && time < $deadline;
}


sub read_pid () {
    open my $in, '<', $PidFile or return;
    my $pid = <$in> // '';
    return $pid =~ /^(\d+)$/ ? $1 : undef;
}


# A daemon's parent returns before the daemon writes its pid file.

sub wait_for_pid_file () {
    my $deadline = time + (defined $child ? 30 : 5);

    while (time < $deadline) {
        return 1 if defined read_pid();
        last if defined $child && !is_running($child);
        sleep 0.005;
    }

    return;
}


# Runs the binary; returns its wait status and what it said. Under valgrind
# nginx does not become a daemon: there it is left behind as a child.

sub run_nginx {
    my ($block) = @_;

    my $valgrind = $Test::Nginx::Util::UseValgrind;
    my @command = (
        $Test::Nginx::Util::NginxBinary,
        -e => "$ServRoot/logs/error.log",
        -p => "$ServRoot/",
        -c => $ConfFile,
    );

    unshift @command, valgrind_command($valgrind) if $valgrind;

    my $err = File::Temp->new;
    $starting = 1;

    defined(my $pid = fork) or bail_out "fork: $!";

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw( INT TERM HUP );
        setpgrp;
        open STDOUT, '>', '/dev/null';
        open STDERR, '>&', $err;
        exec { $command[0] } @command
            or print STDERR "$command[0]: $!\n";
        POSIX::_exit(127);
    }

    if ($valgrind) {
        $child = $pid;
        $valgrind_out = $err;
        return wait_for_pid_file() ? (0, '') : (1, slurp($err->filename));
    }

    waitpid $pid, 0;
    my $status = $?;

    $starting = 0 if $status;

    my $said = slurp($err->filename);
    print STDERR $said
        if $said ne '' && $status == 0 && !defined $block->suppress_stderr;

    fault($block->name, "a report at the start:\n$said")
        if $said =~ /Sanitizer|runtime error:/;

    return ($status, $said);
}


sub valgrind_command {
    my ($options) = @_;

    my @command = qw( valgrind -q );

    # anything that is not a plain switch replaces the tool and its options
    return (@command, split ' ', $options) if $options !~ /^\d+$/;

    push @command, qw(
        --num-callers=100 --gen-suppressions=all
        --tool=memcheck --leak-check=full --show-possibly-lost=no
        --keep-debuginfo=yes
    );
    push @command, '--suppressions=valgrind.suppress'
        if -f 'valgrind.suppress';

    return @command;
}


sub report_valgrind {
    my ($name) = @_;

    return unless defined $valgrind_out;

    my $said = slurp($valgrind_out->filename);
    undef $valgrind_out;
    return if $said eq '';

    print STDERR "$name\n$said";

    # nginx itself leaks a little when it ends: only a file of suppressions
    # can tell that from a leak of ours
    $said =~ s/^==\d+== .* definitely lost in loss record .*//mg
        unless -f 'valgrind.suppress';

    fault($name, 'valgrind has a report')
        if $said =~ /^==\d+== (?!   |\s*$)/m;
}


sub slurp {
    my ($path) = @_;

    open my $in, '<:raw', $path or return '';
    local $/;
    return scalar(<$in>) // '';
}


1;
