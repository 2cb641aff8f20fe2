package detector

import (
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// ObserveSample takes one look at a mail queue. It returns a finding when the
// queue has grown far beyond what is usual on that server: about the account
// that makes it grow, at the lower bound of its share, or about the server
// where no account does.
func (d *Detector) ObserveSample(s mailq.QueueSample) []rules.Finding {
	var parts []part
	for _, share := range s.ByAccount {
		if share.Name != "" {
			parts = append(parts, part{account: mailq.Account(share.Name), count: share.Low})
		}
	}
	f, ok := d.grown(s.Time.UnixNano(), s.Host, s.Total, parts)
	if !ok {
		return nil
	}
	return []rules.Finding{f}
}
