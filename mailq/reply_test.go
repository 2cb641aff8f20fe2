package mailq

import "testing"

// The replies are in the words that providers use, with addresses and
// identifiers of our own.
func TestClassify(t *testing.T) {
	tests := []struct {
		relay, dsn, text string // as Postfix logs them
		want             Class
		provider         string
	}{
		// Recipients that do not exist.
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.1.1", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 double-checking the recipient's email address for typos or 550-5.1.1 unnecessary spaces. 550 5.1.1  https://support.google.com/mail/?p=NoSuchUser x - gsmtp (in reply to RCPT TO command)", RecipientUnknown, "google"},
		{"shop-test.mail.protection.outlook.com[192.0.2.1]:25", "5.4.1", "host shop-test.mail.protection.outlook.com[192.0.2.1] said: 550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [X.eurprd.prod.outlook.com] (in reply to RCPT TO command)", RecipientUnknown, "microsoft"},
		{"outlook-com.olc.protection.outlook.com[192.0.2.1]:25", "5.5.0", "host outlook-com.olc.protection.outlook.com[192.0.2.1] said: 550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). [X.prod.protection.outlook.com] (in reply to RCPT TO command)", RecipientUnknown, "microsoft"},
		{"mta5.am0.yahoodns.net[192.0.2.1]:25", "5.0.0", "host mta5.am0.yahoodns.net[192.0.2.1] said: 552 1 Requested mail action aborted, mailbox not found (in reply to end of DATA command)", RecipientUnknown, "yahoo"},
		{"mx.hard.test[192.0.2.1]:25", "5.1.1", "host mx.hard.test[192.0.2.1] said: 550 5.1.1 <virus-spam@hard.test>: Recipient address rejected: User unknown in virtual mailbox table (in reply to RCPT TO command)", RecipientUnknown, ""},
		{"mx.hard.test[192.0.2.1]:25", "5.1.10", "host mx.hard.test[192.0.2.1] said: 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup (in reply to RCPT TO command)", RecipientUnknown, ""},
		{"none", "5.1.1", "unknown user: \"bob\"", RecipientUnknown, ""},
		{"none", "5.4.4", "Host or domain name not found. Name service error for name=nosuch.test type=AAAA: Host not found", RecipientUnknown, ""},

		// Mailboxes that are full, or switched off.
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.2.2", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 552-5.2.2 The recipient's inbox is out of storage space. Please direct the 552-5.2.2 recipient to https://support.google.com/mail/?p=OverQuotaPerm - gsmtp (in reply to RCPT TO command)", MailboxFull, "google"},
		{"mx.test[192.0.2.1]:25", "5.2.2", "host mx.test[192.0.2.1] said: 552 5.2.2 <bob@mx.test>: Quota exceeded (mailbox for user is full) (in reply to end of DATA command)", MailboxFull, ""},
		{"mx01.mail.icloud.com[192.0.2.1]:25", "5.2.2", "host mx01.mail.icloud.com[192.0.2.1] said: 552 5.2.2 <bob@icloud.com>: user is over quota (in reply to RCPT TO command)", MailboxFull, "apple"},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.2.1", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.2.1 The email account that you tried to reach is inactive. For more information 550 5.2.1 go to https://support.google.com/mail/?p=DisabledUser - gsmtp (in reply to RCPT TO command)", MailboxInactive, "google"},

		// Come back later.
		{"mx.soft.test[192.0.2.1]:25", "4.7.1", "host mx.soft.test[192.0.2.1] said: 451 4.7.1 Greylisting in action, please come back later (in reply to RCPT TO command)", Greylisted, ""},
		{"mx.soft.test[192.0.2.1]:25", "4.2.0", "host mx.soft.test[192.0.2.1] said: 450 4.2.0 <r@soft.test>: Recipient address rejected: Greylisted, see http://postgrey.test/help (in reply to RCPT TO command)", Greylisted, ""},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "4.2.1", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 450-4.2.1 The user you are trying to contact is receiving mail too quickly. 450 4.2.1 Please resend your message at a later time. - gsmtp (in reply to RCPT TO command)", Quota, "google"},
		{"mx.test[192.0.2.1]:25", "4.7.0", "host mx.test[192.0.2.1] refused to talk to me: 421 4.7.0 Too many concurrent connections from your address", Quota, ""},
		{"mx.test[192.0.2.1]:25", "4.5.3", "host mx.test[192.0.2.1] said: 452 4.5.3 Too many recipients (in reply to RCPT TO command)", Quota, ""},

		// The address that sends.
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "4.7.28", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating 421-4.7.28 from your IP address. To protect our users from spam, mail sent from your 421-4.7.28 IP address has been temporarily rate limited. - gsmtp (in reply to end of DATA command)", AddressReputation, "google"},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "4.7.0", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 421-4.7.0 [198.51.100.1      15] Our system has detected an unusual rate of 421-4.7.0 unsolicited mail originating from your IP address. - gsmtp (in reply to end of DATA command)", AddressReputation, "google"},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.7.1", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.7.1 [198.51.100.1      12] Our system has detected that this message is 550-5.7.1 likely unsolicited mail. To reduce the amount of spam sent to Gmail, this 550-5.7.1 message has been blocked. - gsmtp (in reply to end of DATA command)", AddressReputation, "google"},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "4.7.28", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 421-4.7.28 Gmail has detected an unusual rate of mail originating from your 421-4.7.28 DKIM domain [shop.test 36]. - gsmtp (in reply to end of DATA command)", DomainReputation, "google"},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.7.1", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.7.1 [198.51.100.1      19] Gmail has detected that this message is likely 550-5.7.1 suspicious due to the very low reputation of the sending domain. To best 550-5.7.1 protect our users from spam, the message has been blocked. - gsmtp (in reply to end of DATA command)", DomainReputation, "google"},
		{"outlook-com.olc.protection.outlook.com[192.0.2.1]:25", "5.7.1", "host outlook-com.olc.protection.outlook.com[192.0.2.1] said: 550 5.7.1 Unfortunately, messages from [198.51.100.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140). (in reply to MAIL FROM command)", AddressReputation, "microsoft"},
		{"outlook-com.olc.protection.outlook.com[192.0.2.1]:25", "4.7.650", "host outlook-com.olc.protection.outlook.com[192.0.2.1] said: 451 4.7.650 The mail server [198.51.100.1] has been temporarily rate limited due to IP reputation. (S775) (in reply to MAIL FROM command)", AddressReputation, "microsoft"},
		{"shop-test.mail.protection.outlook.com[192.0.2.1]:25", "5.7.708", "host shop-test.mail.protection.outlook.com[192.0.2.1] said: 550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP. (in reply to end of DATA command)", AddressReputation, "microsoft"},
		{"mta7.am0.yahoodns.net[192.0.2.1]:25", "4.7.0", "host mta7.am0.yahoodns.net[192.0.2.1] refused to talk to me: 421 4.7.0 [TSS04] Messages from 198.51.100.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1", AddressReputation, "yahoo"},
		{"mta7.am0.yahoodns.net[192.0.2.1]:25", "5.7.1", "host mta7.am0.yahoodns.net[192.0.2.1] refused to talk to me: 553 5.7.1 [BL21] Connections will not be accepted from 198.51.100.1, because the ip is in Spamhaus's list", AddressReputation, "yahoo"},
		{"mx00.emig.gmx.net[192.0.2.1]:25", "5.0.0", "host mx00.emig.gmx.net[192.0.2.1] refused to talk to me: 554-gmx.net (mxgmx) Nemesis ESMTP Service not available 554-No SMTP service 554-IP address is black listed. 554 For explanation visit https://postmaster.gmx.net/", AddressReputation, "gmx"},
		{"mx00.emig.gmx.net[192.0.2.1]:25", "5.0.0", "host mx00.emig.gmx.net[192.0.2.1] said: 554-Transaction failed 554-Reject due to policy restrictions. 554 For explanation visit https://postmaster.gmx.net/en/ (in reply to end of DATA command)", AddressReputation, "gmx"},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 554 5.7.1 Service unavailable; Client host [198.51.100.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/198.51.100.1 (in reply to RCPT TO command)", AddressReputation, ""},
		{"mx00.t-online.de[192.0.2.1]:25", "5.0.0", "host mx00.t-online.de[192.0.2.1] refused to talk to me: 554 IP=198.51.100.1 - A problem occurred. Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.", AddressReputation, "telekom"},

		// The message.
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.7.0", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 552-5.7.0 This message was blocked because its content presents a potential 552-5.7.0 security issue. - gsmtp (in reply to end of DATA command)", Content, "google"},
		{"mx.spam.test[192.0.2.1]:25", "5.7.1", "host mx.spam.test[192.0.2.1] said: 554 5.7.1 Message rejected: listed at bl.example (spam) (in reply to end of DATA command)", Content, ""},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 This message was classified as SPAM and may not be delivered (in reply to end of DATA command)", Content, ""},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 554 5.7.1 virus Eicar-Test-Signature detected by ClamAV (in reply to end of DATA command)", Content, ""},
		{"mx01.mail.icloud.com[192.0.2.1]:25", "5.7.1", "host mx01.mail.icloud.com[192.0.2.1] said: 554 5.7.1 [CS01] Message rejected due to local policy. Please visit https://support.apple.com/en-us/HT204137 (in reply to end of DATA command)", Content, "apple"},

		// Who says who one is.
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.7.26", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.7.26 Your email has been blocked because the sender is unauthenticated. Gmail 550-5.7.26 requires all senders to authenticate with either SPF or DKIM. - gsmtp (in reply to end of DATA command)", Authentication, "google"},
		{"gmail-smtp-in.l.google.com[192.0.2.1]:25", "5.7.25", "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.7.25 [198.51.100.1] The IP address sending this message does not have a PTR record setup - gsmtp (in reply to end of DATA command)", Authentication, "google"},
		{"outlook-com.olc.protection.outlook.com[192.0.2.1]:25", "5.7.515", "host outlook-com.olc.protection.outlook.com[192.0.2.1] said: 550 5.7.515 Access denied, sending domain SHOP.TEST does not meet the required authentication level. (in reply to end of DATA command)", Authentication, "microsoft"},
		{"mta7.am0.yahoodns.net[192.0.2.1]:25", "5.7.9", "host mta7.am0.yahoodns.net[192.0.2.1] said: 550 5.7.9 This mail has been blocked because the sender is unauthenticated. (in reply to end of DATA command)", Authentication, "yahoo"},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 Client host rejected: cannot find your reverse hostname (in reply to RCPT TO command)", Authentication, ""},

		// broad-550-571: what is no evidence of spam.
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 Unable to relay for bob@test (in reply to RCPT TO command)", Policy, ""},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 Delivery not authorized, message refused (in reply to RCPT TO command)", Unclassified, ""},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 RESOLVER.RST.AuthRequired; authentication required (in reply to RCPT TO command)", Unclassified, ""},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 <spammer@shop.test>: Sender address rejected: not allowed here (in reply to RCPT TO command)", Policy, ""},
		{"mx.test[192.0.2.1]:25", "5.7.1", "host mx.test[192.0.2.1] said: 550 5.7.1 (in reply to RCPT TO command)", Unclassified, ""},
		{"mx.test[192.0.2.1]:25", "5.3.4", "host mx.test[192.0.2.1] said: 552 5.3.4 Message size exceeds fixed limit (in reply to MAIL FROM command)", Policy, ""},

		// What a server says of itself is no proof: only its name, which our resolver confirmed, tells whose it is.
		{"mx.evil.test[192.0.2.1]:25", "4.7.28", "host mx.evil.test[192.0.2.1] said: 421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating 421-4.7.28 from your IP address. - gsmtp (in reply to end of DATA command)", AddressReputation, ""},

		// Nobody answered.
		{"none", "4.4.1", "connect to mx.dead.test[192.0.2.1]:25: Connection refused", Network, ""},
		{"none", "4.4.1", "connect to mx.dead.test[192.0.2.1]:25: Connection timed out", Network, ""},
		{"none", "4.4.3", "Host or domain name not found. Name service error for name=slow.test type=MX: Host not found, try again", Network, ""},
		{"mx.test[192.0.2.1]:25", "4.4.2", "lost connection with mx.test[192.0.2.1] while receiving the initial server greeting", Network, ""},
		{"none", "4.7.0", "delivery temporarily suspended: host gmail-smtp-in.l.google.com[192.0.2.1] refused to talk to me: 421-4.7.0 unusual rate of unsolicited mail", Network, ""},
		{"none", "4.4.2", "delivery temporarily suspended: lost connection with mx.test[192.0.2.1] while sending RCPT TO", Network, ""},
	}
	p := newParser()
	p.prepare()
	for _, tt := range tests {
		got := p.reply(Bounced, p.relay([]byte(tt.relay)).provider, []byte(tt.dsn), []byte(tt.text))
		if got.Class != tt.want || got.Provider != tt.provider {
			t.Errorf("%s\n\tgot %s %q, want %s %q", tt.text, className(got.Class), got.Provider, className(tt.want), tt.provider)
		}
	}
}

func TestReadCodes(t *testing.T) {
	tests := []struct {
		text     string
		code     int
		enhanced string
	}{
		{"550 5.1.1 x", 550, "5.1.1"}, {"550-5.1.1 x", 550, "5.1.1"}, {"250 Ok", 250, ""}, {"451 4.7.650 x", 451, "4.7.650"}, {"554", 554, ""}, {"550 5.1.1000 x", 550, ""},
		{"5500 x", 0, ""}, {"hello", 0, ""}, {"", 0, ""}, {"550 5.1. x", 550, ""}, {"552 1 Requested", 552, ""},
	}
	for _, tt := range tests {
		if code, enhanced := readCodes([]byte(tt.text)); code != tt.code || string(enhanced) != tt.enhanced {
			t.Errorf("%q: %d %q, want %d %q", tt.text, code, enhanced, tt.code, tt.enhanced)
		}
	}
}

func TestProviderOf(t *testing.T) {
	for name, want := range map[string]string{"gmail-smtp-in.l.google.com": "google", "ALT1.ASPMX.L.GOOGLE.COM.": "google", "shop.mail.protection.outlook.com": "microsoft",
		"mta5.am0.yahoodns.net": "yahoo", "evilgoogle.com": "", "google.com.evil.test": "", "": "", "mx01.mail.icloud.com": "apple", "mx.ok.test": ""} {
		if got := providerOf([]byte(name)); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	text := []byte("550 5.7.1 Delivery not authorized, message refused by a server that says much and means little (in reply to RCPT TO command)")
	enhanced := []byte("5.7.1")
	var words lowered
	b.ReportAllocs()
	for range b.N {
		words.classify("", 550, enhanced, text, true)
	}
}
