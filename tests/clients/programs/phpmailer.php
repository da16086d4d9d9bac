<?php
require '/usr/share/php/libphp-phpmailer/autoload.php';

$mail = new PHPMailer\PHPMailer\PHPMailer();
// RECIPE
$mail->CharSet = 'utf-8';
$mail->Encoding = '8bit';
$mail->setFrom('scanner@example.com');
$mail->addAddress('someone@example.net');
$mail->Subject = 'Scan für das Büro';
$mail->Body = file_get_contents('body.txt');
$mail->addAttachment('scan.bin');
if (!$mail->send()) {
    echo $mail->ErrorInfo, "\n";
    exit(1);
}
