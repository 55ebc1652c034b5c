package Test::Nginx::Request;

# From the sections of a test to the octets to send.
#
# A request is a list of packets, { value => octets, delay_before => seconds },
# so that a test can cut it anywhere. Requests other than raw ones are written
# short, "POST /path" and a body: the version, the headers and the length of
# the body are filled in here, wherever the test has cut.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use Test::Nginx::Util;

our @EXPORT = qw( requests_of_block );


sub requests_of_block ($) {
    my ($block) = @_;
    my $name = $block->name;

    if (defined(my $raw = $block->raw_request)) {
        return [map { { value => $_ } } ref $raw eq 'ARRAY' ? @$raw : $raw];
    }

    return pipelined_requests($block) if $block->pipelined_requests;

    my $request = $block->request;
    bail_out "$name - no request" unless defined $request;

    if (!ref $request) {
        # comments may stand above the request line
        1 while $request =~ s/\A\s*#[^\n]+\s+|\A\s+//;
        $request = [$request];
    }

    bail_out "$name - request is neither text nor a list"
        if ref $request ne 'ARRAY';

    my $i = 0;
    return map { complete($block, $_, $i++, 'close') } @$request;
}


# All in one: only the last request closes the connection.

sub pipelined_requests {
    my ($block) = @_;
    my $name = $block->name;

    my $requests = $block->pipelined_requests;
    bail_out "$name - pipelined_requests is not a list"
        if ref $requests ne 'ARRAY';

    my $all = '';

    for my $i (0 .. $#$requests) {
        my $request = expand_env_in_text($requests->[$i], $name,
                                         $Test::Nginx::Util::RandPorts);
        my $packets = complete($block, $request, $i,
                               $i == $#$requests ? 'close' : 'keep-alive');
        $all .= $packets->[0]{value};
    }

    return [{ value => $all }];
}


# One request, given as text or as a list of packets, made whole.

sub complete {
    my ($block, $request, $index, $connection) = @_;
    my $name = $block->name;

    my @packets = map { ref ? { %$_ } : { value => $_ } }
                  ref $request eq 'ARRAY' ? @$request : $request;

    my $text = join '', map {
        $_->{value} // bail_out "$name - a packet has no value"
    } @packets;

    my @pieces = pieces_of($block, $text, $index, $connection);

    # Where a packet ends in the short form says where it ends in the full
    # one. What is added at a cut belongs before it.
    my ($old_end, $new_end) = (0, 0);
    my $full = join '', map { $_->[1] } @pieces;

    for my $packet (@packets) {
        $old_end += length $packet->{value};

        my ($old, $new) = (0, 0);

        for my $piece (@pieces) {
            my ($length, $replacement) = @$piece;
            my $into = $old_end - $old;

            if ($length > $into) {
                $new += $into < length $replacement ? $into
                                                    : length $replacement;
                last;
            }

            $old += $length;
            $new += length $replacement;
        }

        $packet->{value} = substr $full, $new_end, $new - $new_end;
        $new_end = $new;
    }

    return \@packets;
}


# The short form cut up: [length there, text in the full form].

sub pieces_of {
    my ($block, $text, $index, $connection) = @_;
    my $name = $block->name;

    my ($line, $body) = $text =~ /\A([^\n]*\n?)(.*)\z/s;

    $line =~ m{
        \A (\s*) (\S+) ([ ]*) (?: (\S+) ([ ]*) (?: (\S+) ([ ]*) )? )? (\s*) \z
    }x or bail_out "$name - not \"method [path [version]]\": \"$line\"";

    my ($before, $method, $gap1, $path, $gap2, $version, $gap3, $end)
        = map { $_ // '' } $1, $2, $3, $4, $5, $6, $7, $8;

    my ($headers, $is_chunked) = more_headers($block, $index);
    my $full_body = $body;
    my $length = '';

    if ($body ne '' && !$is_chunked && $headers !~ /^Content-Length:/m) {
        $full_body =~ s/^\s+|\s+$//g;
        $length = 'Content-Length: ' . length($full_body) . "\r\n";
    }

    my $host = $headers =~ /^Host:/mi ? '' : "Host: $ServerName\r\n";
    $host .= "Connection: $connection\r\n" if $headers !~ /^Connection/mi;

    return (
        [length $before, ''],
        [length $method, "$method "],
        [length $gap1, ''],
        [length $path, ($path eq '' ? '/' : $path) . ' '],
        [length $gap2, ''],
        [length $version, ($version eq '' ? 'HTTP/1.1' : $version) . "\r\n"],
        [length "$gap3$end", ''],
        [0, "$host$headers$length\r\n"],
        [length $body, $full_body],
    );
}


# The headers of the request with this number; all share them unless the
# section is a list.

sub more_headers {
    my ($block, $index) = @_;

    my $section = $block->more_headers || '';

    if (ref $section eq 'ARRAY') {
        $section = $section->[$index]
            // bail_out $block->name . " - no more_headers for request $index";
    }

    my $headers = '';
    my $is_chunked;

    for my $line (split /\n+/, $section) {
        next if $line =~ /^\s*#/;

        my ($key, $value) = split /:\s*/, $line, 2;
        $value //= '';

        $is_chunked = 1
            if lc $key eq 'transfer-encoding' && $value eq 'chunked';
        $headers .= "$key: $value\r\n";
    }

    return ($headers, $is_chunked);
}


1;
