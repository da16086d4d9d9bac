<?php
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
require '/usr/share/php/Symfony/Component/Mime/autoload.php';

use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Email;

// RECIPE
$mailer->send(
    (new Email())
        ->from('scanner@example.com')
        ->to('someone@example.net')
        ->subject('Scan für das Büro')
        ->text(file_get_contents('body.txt'))
        ->attach(file_get_contents('scan.bin'), 'scan.bin', 'application/octet-stream')
);
