package detector

import "github.com/vedetta-watch/vedetta/mailq"

// carry makes known of a recipient's next hash what is known of the present one.
// While the key of the hashes is replaced recipients have both: they are judged by
// the present one, as ever, and when the next comes alone it is known. What stays
// behind under the old key makes room as all that is old does.
//
// What is remembered for an hour or a day is not carried over: whom an account
// wrote to within the hour before the change counts once more among its recipients
// of that hour. Nor is who wrote to the account before the change began and is answered
// first when it is over.
func (d *Detector) carry(a *account, to *mailq.Recipient) {
	if d.fleet.mem.has(to.Hash) {
		d.fleet.mem.add(to.Next)
	}
	if d.fleet.heard.has(a.pair(to.Hash)) {
		d.fleet.heard.add(a.pair(to.Next))
	}
	if a.known.has(to.Hash) && !a.known.has(to.Next) {
		a.known.put(0, to.Next, true) // the last are whom the account learnt last, see mark
	}
	if p := a.ep.doubted().pending; p.has(to.Hash) && !p.has(to.Next) && !p.full() {
		p.add(to.Next)
	}
}
