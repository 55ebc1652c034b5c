package Test::Nginx::TcpMock;

# The server behind the tcp_* sections: a child that takes one connection,
# notes what it reads and sends a fixed reply.
#
# What it read is in a file after each read, whole or not at all, for the
# test looks at it without waiting for the mock to end.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use File::Temp ();
use IO::Socket::INET ();
use IO::Socket::UNIX ();
use POSIX ();
use Socket qw( SOCK_STREAM );
use Test::More ();
use Time::HiRes qw( sleep );

use Test::Nginx::Util;

our @EXPORT = qw( start_tcp_mock stop_tcp_mocks check_tcp_query );

my ($child, $socket, $dir);


sub start_tcp_mock ($) {
    my ($block) = @_;
    my $name = $block->name;

    return unless defined $block->tcp_listen;

    bail_out "$name - tcp_listen needs a tcp_reply"
        unless defined $block->tcp_reply || defined $block->tcp_shutdown;

    my $target = expand_env_in_text($block->tcp_listen, $name,
                                    $Test::Nginx::Util::RandPorts);

    for (1 .. 30) {
        last if $socket = listen_on($name, $target);
        sleep 0.2;
    }

    bail_out "$name - cannot listen on $target: $!" unless $socket;

    $dir = File::Temp->newdir;

    defined($child = fork) or bail_out "fork: $!";
    return if $child;

    $SIG{$_} = 'DEFAULT' for qw( INT TERM HUP __DIE__ );
    eval { serve($block); 1 } or print STDERR "$name - TCP server: $@";
    POSIX::_exit(0);
}


sub listen_on {
    my ($name, $target) = @_;

    return IO::Socket::INET->new(
        LocalHost => '127.0.0.1',
        LocalPort => $target,
        ReuseAddr => 1,
        Listen    => 5,
    ) if $target =~ /^\d+$/;

    bail_out "$name - tcp_listen is neither a port nor a .sock path: $target"
        if $target !~ /\S\.sock$/;

    unlink $target;
    return IO::Socket::UNIX->new(
        Local  => $target,
        Type   => SOCK_STREAM,
        Listen => 5,
    );
}


sub serve {
    my ($block) = @_;

    my $client = $socket->accept or die "accept: $!\n";
    my $shut = $block->tcp_shutdown;

    if (defined $shut) {
        sleep $block->tcp_shutdown_delay if $block->tcp_shutdown_delay;
        shutdown $client, $shut;
    }

    # a read side that is shut takes no query, any other side no reply
    my $reads = !defined $shut || $shut == 1;
    my $query = $reads ? read_query($block, $client) : undef;

    my $delay = parse_time($block->tcp_reply_delay);
    sleep $delay if $delay;

    my $reply = defined $shut && $shut == 1 ? undef : $block->tcp_reply;
    $reply = $reply->($query) if ref $reply eq 'CODE';

    local $SIG{PIPE} = 'IGNORE';

    for my $part (ref $reply ? @$reply : $reply // ()) {
        defined $client->send($part) or die "send: $!\n";
    }

    sleep 1 while defined $block->tcp_no_close;
}


# Without a length to wait for, the first read is all there is.

sub read_query {
    my ($block, $client) = @_;

    my $wanted = $block->tcp_query_len // length($block->tcp_query // '');
    my $query = '';

    do {
        defined $client->recv(my $part, 4096) or die "recv: $!\n";
        return $query if $part eq '';

        $query .= $part;

        open my $out, '>:raw', "$dir/new" or die "$dir/new: $!\n";
        print $out $query;
        close $out;
        rename "$dir/new", "$dir/query" or die "$dir/query: $!\n";
    } while (length $query < $wanted);

    return $query;
}


sub check_tcp_query ($) {
    my ($block) = @_;
    my $name = $block->name;

    return unless $child;

    my $query = '';
    if (open my $in, '<:raw', "$dir/query") {
        local $/;
        $query = <$in> // '';
    }

    is_str($query, scalar $block->tcp_query, "$name - TCP query")
        if defined $block->tcp_query;

    Test::More::is(length $query, $block->tcp_query_len,
                   "$name - length of the TCP query")
        if defined $block->tcp_query_len;
}


sub stop_tcp_mocks () {
    if ($child) {
        kill KILL => $child;
        waitpid $child, 0;
        undef $child;
    }

    undef $_ for $socket, $dir;
}


1;
