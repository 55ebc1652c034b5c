package Test::Nginx::Client;

# Sends the packets of a request and reads until the server closes, then takes
# the octets apart into responses.
#
# The framing of a response is read as strictly as a client of nginx would:
# what breaks it, or comes after it, is a fault.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use HTTP::Response ();
use IO::Select ();
use IO::Socket::INET ();
use Time::HiRes qw( sleep );

use Test::Nginx::Server;
use Test::Nginx::Util;

our @EXPORT = qw( exchange parse_response );


# All that came back, as one string.

sub exchange ($$) {
    my ($block, $packets) = @_;
    my $name = $block->name;

    my $timeout = parse_time($block->timeout) // timeout();
    my $sock = connect_to_server($block, $timeout) or return '';

    local $SIG{PIPE} = 'IGNORE';
    $sock->blocking(0);

    my @unsent = @$packets;
    my $unsent = (shift @unsent)->{value};
    my $response = '';
    my $readers = IO::Select->new($sock);
    my $writers = IO::Select->new($sock);

    while (1) {
        my ($readable, $writable)
            = IO::Select->select($readers, $writers, undef, $timeout);

        if (!$readable) {
            fault($name, "no answer within $timeout seconds")
                unless defined $block->abort;
            last;
        }

        if (@$readable) {
            my $got = sysread $sock, $response, 65536, length $response;

            if (defined $got) {
                last if $got == 0;

            } elsif (!$!{EAGAIN} && !$!{EINTR}) {
                warn "WARNING: $name - reading the response: $!\n";
                last;
            }
        }

        next if !@$writable;

        if ($unsent ne '') {
            my $sent = syswrite $sock, $unsent;

            if (defined $sent) {
                substr $unsent, 0, $sent, '';

            } elsif (!$!{EAGAIN} && !$!{EINTR}) {
                # the server may have answered before it stopped listening
                warn "WARNING: $name - writing the request: $!\n";
                $writers->remove($sock);
            }

        } elsif (my $next = shift @unsent) {
            my $delay = $next->{delay_before}
                        // $block->raw_request_middle_delay;
            sleep $delay if $delay;
            $unsent = $next->{value};

        } else {
            $writers->remove($sock);

            if (defined(my $how = $block->shutdown)) {
                shutdown $sock, $how =~ /\d/ ? $how : 1;
            }
        }
    }

    close $sock;

    # let the server see that the client is gone
    sleep 0.005 if defined $block->abort;

    return $response;
}


sub connect_to_server {
    my ($block, $timeout) = @_;
    my $name = $block->name;

    my $addr = $block->server_addr_for_client // $ServerAddr;

    for my $try (1 .. 50) {
        my $sock = IO::Socket::INET->new(
            PeerAddr => $addr,
            PeerPort => $ServerPortForClient,
            Timeout  => $timeout,
        );
        return $sock if $sock;

        last if !$NoNginxManager && server_is_gone();
        sleep($try < 10 ? 0.01 * $try : 0.2);
    }

    fault($name, "cannot connect to $addr:$ServerPortForClient: $!");
    return;
}


# Returns the response, its header as it came, and what follows it.

sub parse_response ($$$) {
    my ($block, $raw, $is_head) = @_;
    my $name = $block->name;

    my ($header) = $raw =~ /\A(.*?\r\n)\r\n/s;
    my $response = HTTP::Response->parse($raw);
    my $code = $response->code;

    $response->code($code = undef) if defined $code && $code !~ /^\d+$/;

    return ($response, $header // '', undef)
        if $code && ($code == 304 || $code == 101);

    my $body = $response->content // '';
    my $encoding = $response->header('Transfer-Encoding') // '';
    my $length = $response->header('Content-Length') // '';
    my $rest;

    if ($encoding eq 'chunked') {
        my @trailers = $response->header('Trailer');
        my $error;

        ($body, $rest, $error) = dechunk($body, @trailers);

        if (defined $error) {
            fault($name, "bad chunked body: $error");
            return;
        }

        $response->content($body);

    } elsif ($length =~ /^\d+$/) {
        if (length $body > $length) {
            $rest = substr $body, $length;
            $response->content(substr $body, 0, $length);

        } elsif (length $body < $length && !$is_head) {
            warn "WARNING: $name - the body ends after ", length $body,
                 " of $length octets\n";
        }
    }

    return ($response, $header // '', $rest);
}


# Returns the body and the rest, or an error in third place.

sub dechunk {
    my ($raw, @trailers) = @_;
    my $body = '';

    while ($raw =~ /\G[ \t]*([0-9A-Fa-f]+)[ \t]*\r\n/gc) {
        my $size = hex $1;

        if ($size == 0) {
            for my $trailer (@trailers) {
                $raw =~ /\G\Q$trailer\E: [^\n]*\r\n/gc
                    or return (undef, undef, "no trailer $trailer");
            }

            $raw =~ /\G\r\n/gc
                or return (undef, undef, 'no empty line at the end');
            return ($body, substr $raw, pos $raw);
        }

        my $from = pos $raw;
        length $raw >= $from + $size + 2
            or return (undef, undef, "a chunk of $size octets is cut short");
        substr($raw, $from + $size, 2) eq "\r\n"
            or return (undef, undef, 'no line end after a chunk');

        $body .= substr $raw, $from, $size;
        pos($raw) = $from + $size + 2;
    }

    return (undef, undef, 'no last chunk');
}


1;
