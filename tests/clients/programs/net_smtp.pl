use strict;
use warnings;
use Net::SMTP;

# RECIPE
open my $file, '<:raw', 'message.eml' or die $!;
my $message = do { local $/; <$file> };
$smtp->mail('scanner@example.com') or die $smtp->message;
$smtp->to('someone@example.net') or die $smtp->message;
$smtp->data($message) or die $smtp->message;
$smtp->quit;
