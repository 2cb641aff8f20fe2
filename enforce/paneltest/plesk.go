package paneltest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// plesk answers "plesk bin mail --info ADDRESS" and "plesk bin mail --update
// ADDRESS OPTION VALUE…" and returns the exit status: 0, or 1 with the reason
// on standard error. "Getting Started with Command Line Utilities",
// https://docs.plesk.com/current/cli-linux/getting-started-with-command-line-utilities.37894/
//
// The vendor's page on the mail utility was not at hand: its options and what
// it prints are as in listings that others published (assumed).
func (p *Panel) plesk(args []string) (status int) {
	err := p.Edit(func(s *State) {
		out, reason := s.pleskMail(args)
		if s.Trouble == Fail {
			out, reason = "", Reason
		}
		if reason != "" {
			fmt.Fprintln(os.Stderr, reason)
			status = 1
			return
		}
		switch s.Trouble {
		case Half:
			out = out[:len(out)/2]
		case Warnings:
			out = "PHP Warning:  Undefined variable $x in /usr/local/psa/admin/plib/mail.php on line 7\n" + out
		case OtherCall:
			out = strings.ReplaceAll(out, "Mailname:           ", "Mailname:           not-")
		}
		fmt.Print(out)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		return 3
	}
	return status
}

func (s *State) pleskMail(args []string) (out, reason string) {
	if len(args) < 4 || args[0] != "bin" || args[1] != "mail" {
		return "", "Unrecognized command line: " + strings.Join(args, " ")
	}
	address := args[3]
	m := s.Mailboxes[address]
	switch {
	case args[2] == "--info" && len(args) != 4, args[2] == "--update" && len(args)%2 != 0:
		return "", "Unrecognized option."
	case m == nil:
		return "", fmt.Sprintf("An error occurred during getting mailname information: Mailname '%s' doesn't exists", address)
	case args[2] == "--info":
		return s.pleskInfo(address, m), ""
	case args[2] == "--update":
		for option := range slices.Chunk(args[4:], 2) {
			if reason := s.pleskUpdate(m, option[0], option[1]); reason != "" {
				return "", reason
			}
		}
		return fmt.Sprintf("SUCCESS: Update of mailname '%s' complete\n", address), ""
	}
	return "", "Unrecognized command: " + args[2]
}

func (s *State) pleskInfo(address string, m *Mailbox) string {
	local, domain, _ := strings.Cut(address, "@")
	lines := []string{
		"Mailname:           " + local,
		"Domain:             " + domain,
		"Mailbox:            true",
		"Password:           " + m.Password, // as old versions do
		"Password type:      sym",
		"Mbox quota:         Default value (Unlimited)",
		fmt.Sprintf("Mailgroup:          %t", m.Forwarding),
	}
	if len(m.Addresses) > 0 {
		lines = append(lines, "Group member(s):    "+strings.Join(m.Addresses, " ")+" ")
	}
	if s.TellsLimit {
		words := map[string]string{"-1": "Unlimited", "default": "Default (50 messages per hour)"}
		limit, ok := words[m.Limit]
		if !ok {
			limit = m.Limit
		}
		lines = append(lines, "Outgoing messages:  "+limit)
	}
	lines = append(lines, "Attachment files:   Empty", "Autoresponders:     Disabled", "", fmt.Sprintf("SUCCESS: Gathering information for '%s' complete", address))
	return strings.Join(lines, "\n") + "\n"
}

func (s *State) pleskUpdate(m *Mailbox, option, value string) (reason string) {
	switch option {
	case "-outgoing-messages-mbox-limit":
		if _, err := strconv.ParseUint(value, 10, 31); err != nil && value != "-1" && value != "default" {
			return "The limit is not valid."
		}
		m.Limit = value
	case "-forwarding":
		switch value {
		case "true":
			m.Forwarding = true
		case "false":
			m.Forwarding = false
			if s.ForgetsForwards {
				m.Addresses = nil
			}
		default:
			return "true or false is expected."
		}
	case "-forwarding-addresses":
		added, ok := strings.CutPrefix(value, "add:")
		if !ok {
			return "This fake knows add: only."
		}
		for a := range strings.SplitSeq(added, ",") {
			if slices.Contains(m.Addresses, a) {
				return fmt.Sprintf("The address '%s' is there already.", a)
			}
			m.Addresses = append(m.Addresses, a)
		}
	case "-passwd":
		if value == "" {
			value = os.Getenv("PSA_PASSWORD")
		}
		if strings.HasPrefix(value, "weak") {
			return fmt.Sprintf("The password '%s' is not strong enough.", value)
		}
		m.Password = value
	default:
		return "Unrecognized option: " + option
	}
	return ""
}
