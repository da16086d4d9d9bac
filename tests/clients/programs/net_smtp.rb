require 'net/smtp'

message = File.binread('message.eml')
# RECIPE
