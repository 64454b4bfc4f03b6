#!/usr/bin/perl
# A fake Firecracker: its API as src/firecracker/swagger/firecracker.yaml of Firecracker 1.16.1 describes it,
# its log, and its exit codes, with no VM behind it. It does wrong what the name of its file says.
use strict;
use warnings;
use IO::Socket::UNIX;

my ($fault) = $0 =~ m{([^/]+)$};
my %options = @ARGV;
my ($log, $metrics);

sub note {
    my ($level, $text) = @_;
    my $line = "2026-11-29T02:01:10.476814550 [$options{'--id'}:main:$level] $text\n";
    syswrite $log, $line if $log;
}

sub answer {
    my ($client, $status, $body) = @_;
    my $head = "HTTP/1.1 $status \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n";
    my $length = length $body;
    $head .= "Content-Type: application/json\r\nContent-Length: $length\r\n" if $length;
    syswrite $client, "$head\r\n$body";
}

# The order of a real one: what the log says, the answer, the end.
sub refuse {
    my ($client, $message) = @_;
    note('ERROR', "Received Error. Status code: 400 Bad Request. Message: $message");
    answer($client, 400, qq({"fault_message":"$message"}));
}

sub stall {
    sleep 1 while 1;
}

sub restore {
    my ($client) = @_;
    stall() if $fault eq 'load-stalls';
    exit 1 if $fault eq 'load-ends';
    return answer($client, 204, '') unless $fault =~ /^load-fails/;
    undef $log if $fault eq 'load-fails-unlogged';
    refuse($client, 'Load snapshot error: Failed to get snapshot state from file: bitcode error');
    note('ERROR', 'RunWithApiError error: Failed to build MicroVM: Loading snapshot failed..');
    note('ERROR', 'Firecracker exiting with error. exit_code=1');
    exit 1;
}

sub run_guest {
    my ($client) = @_;
    stall() if $fault eq 'start-stalls';
    if ($fault eq 'start-ends') {
        note('ERROR', 'Firecracker panicked at src/vmm/src/builder.rs:7:9:');
        syswrite $metrics, qq({"vmm":{"panic_count":1},"vcpu":{"failures":0}}\n);
        # As abort(3) does where SIGABRT ends nothing: of the first process of a namespace.
        my $crash = unpack 'p', pack 'Q', 8;
    }
    return answer($client, 204, '') unless $fault eq 'start-fails';
    refuse($client, 'Start microvm error: Cannot allocate memory.');
}

sub serve {
    my ($client, $method, $resource, $body) = @_;
    if ("$method $resource" eq 'GET /version') {
        return answer($client, 200, '{"firecracker_version":"1.16.1"}');
    }
    if ($resource eq '/logger' && $body =~ /"log_path":"([^"]+)"/) {
        open $log, '+<', $1 or die "opening the log failed: $!";
    }
    if ($resource eq '/metrics' && $body =~ /"metrics_path":"([^"]+)"/) {
        open $metrics, '+<', $1 or die "opening the pipe of the metrics failed: $!";
    }
    return restore($client) if $resource eq '/snapshot/load';
    return run_guest($client) if $resource eq '/actions' || $resource eq '/vm';
    answer($client, 204, '');
}

# A kernel's socket is there when it has its path, and takes connections when it listens.
socket(my $api, AF_UNIX, SOCK_STREAM, 0) or die "making the socket failed: $!";
bind($api, pack_sockaddr_un($options{'--api-sock'})) or die "binding the socket failed: $!";
stall() if $fault eq 'never-listens';
select undef, undef, undef, 0.3 if $fault eq 'listens-late';
listen($api, 8) or die "listening failed: $!";
exit 153 if $fault eq 'ends-early';
stall() if $fault eq 'never-answers';
accept(my $client, $api) or die "accepting failed: $!";
select undef, undef, undef, 0.3 if $fault eq 'listens-late';
my $read = '';
while (1) {
    if ($read =~ /^(\S+) (\S+) HTTP.*?\r\n\r\n/s) {
        my ($method, $resource, $head) = ($1, $2, $&);
        my $length = $head =~ /content-length: (\d+)/i ? $1 : 0;
        if (length($read) >= length($head) + $length) {
            my $body = substr $read, length $head, $length;
            $read = substr $read, length($head) + $length;
            serve($client, $method, $resource, $body);
            next;
        }
    }
    sysread($client, $read, 65536, length $read) or exit 0;
}
