# SPDX-License-Identifier: Apache-2.0
# A Perl service with a hole: /run?c=COMMAND. Usage: service.pl PORT
use strict;
use warnings;
use IO::Socket::INET;

$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 16, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    if (fork) { close $client; next; }
    $SIG{CHLD} = 'DEFAULT';
    my $request = <$client>;
    while (my $line = <$client>) { last if $line =~ /^\r?$/; }
    my $body = "well\n";
    if ($request =~ m{/run\?c=(\S+)}) {
        my $command = $1;
        $command =~ s/%([0-9a-fA-F]{2})/chr hex $1/ge;
        $command =~ s/\+/ /g;
        $body = `( $command ) </dev/null`;
    }
    print $client "HTTP/1.0 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    exit 0;
}
