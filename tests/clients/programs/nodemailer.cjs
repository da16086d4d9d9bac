const fs = require('fs')
const nodemailer = require('nodemailer')

// RECIPE
const message = {
  from: 'scanner@example.com',
  to: 'someone@example.net',
  subject: 'Scan für das Büro',
  text: fs.readFileSync('body.txt', 'utf-8'),
  attachments: [{ path: 'scan.bin', contentType: 'application/octet-stream' }],
}
const count = Number(process.argv[2] || 1)
Promise.all(Array.from({ length: count }, () => transport.sendMail(message)))
  .catch((error) => {
    console.log(error.message)
    process.exitCode = 1
  })
  .finally(() => transport.close())
