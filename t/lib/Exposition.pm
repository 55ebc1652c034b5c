# Whether a text is what Prometheus reads: its text format 0.0.4, and what its
# linter asks for besides (counters end in _total, each metric has its help).

package Exposition;

use strict;
use warnings;

use Exporter qw( import );

our @EXPORT = qw( exposition );

my $NAME = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $LABEL = qr/[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"/;
my $VALUE = qr/[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|Inf)|NaN/i;


# "good", or what is wrong, one fault a line.

sub exposition {
    my ($text) = @_;
    my (@faults, %help, %type, %seen, %done);
    my $last = '';

    my $copy = $text;
    push @faults, 'it is no UTF-8' if !utf8::decode($copy);
    push @faults, 'the last line has no end' if $text !~ /\n\z/;

    for my $line (split /\n/, $text) {

        if ($line =~ /^# HELP ($NAME) (.*)$/) {
            my ($name, $help) = ($1, $2);

            push @faults, "HELP of $name twice" if $help{$name}++;
            push @faults, "HELP of $name is empty or badly escaped"
                if $help !~ /^(?:[^\\]|\\[\\n])+$/;
            next;
        }

        if ($line =~ /^# TYPE ($NAME) (counter|gauge)$/) {
            my ($name, $type) = ($1, $2);

            push @faults, "TYPE of $name twice" if $type{$name};
            push @faults, "TYPE of $name without its HELP" if !$help{$name};
            push @faults, "$name is a $type, as its end does not say"
                if ($type eq 'counter') != ($name =~ /_total$/);

            $type{$name} = $type;
            next;
        }

        if ($line =~ /^($NAME)(?:\{($LABEL(?:,$LABEL)*)\})? ($VALUE)$/) {
            my ($name, $labels, $value) = ($1, $2 // '', $3);

            push @faults, "$name has no TYPE" if !$type{$name};
            push @faults, "$name$labels twice" if $seen{"$name\n$labels"}++;
            push @faults, "$name is below zero" if $value =~ /^-/;

            if ($name ne $last) {
                push @faults, "$name is in two places" if $done{$name}++;
                $last = $name;
            }

            next;
        }

        push @faults, "not understood: $line";
    }

    push @faults, map { "$_ has no sample" } grep { !$done{$_} }
                  sort keys %type;

    return @faults ? join "\n", @faults : 'good';
}


1;
