package paneltest

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
)

// Serve starts WHM's JSON API over HTTPS, with a certificate that only the
// returned server's own vouches for.
//
// The documentation: "API Tokens in WHM", https://api.docs.cpanel.net/whm/tokens/;
// "Introduction to WHM API 1", https://api.docs.cpanel.net/whm/introduction;
// "Use WHM API to call cPanel API 2 and UAPI",
// https://api.docs.cpanel.net/whm/use-whm-api-to-call-cpanel-api-and-uapi/
func (p *Panel) Serve() *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it are wanted
	server.StartTLS()
	return server
}

const denied = `{"cpanelresult":{"apiversion":"2","error":"Access denied","data":{"reason":"Access denied","result":"0"},"type":"text"}}`

func (p *Panel) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	s, err := p.State()
	if err == nil {
		err = p.record([]string{r.Method, r.URL.String(), string(body)})
	}
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", `text/plain; charset="utf-8"`) // as it is
	switch s.Trouble {
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // to return would be an answer
	case Garbage:
		fmt.Fprint(w, "<html>Login</html>")
		return
	case Nothing:
		return
	case Unauthorize:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, denied)
		return
	case Broken:
		http.Error(w, "The server is busy.", http.StatusInternalServerError)
		return
	case Redirect:
		http.Redirect(w, r, "https://elsewhere.example/login", http.StatusFound)
		return
	case Flood:
		for line := []byte(strings.Repeat("0123456789", 1000) + "\n"); ; {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	if r.Header.Get("Authorization") != "whm root:"+s.Token {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, denied)
		return
	}
	answer := p.request(r, string(body))
	if s.Trouble == Half {
		answer = answer[:len(answer)/2]
	}
	fmt.Fprint(w, answer)
}

// request answers a call over HTTPS.
func (p *Panel) request(r *http.Request, body string) string {
	args, err := url.ParseQuery(body)
	if err != nil || r.URL.RawQuery != "" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return whm("unknown", nil, "The request is not a form.")
	}
	function, ok := strings.CutPrefix(r.URL.Path, "/json-api/")
	if !ok || strings.Contains(function, "/") {
		return whm("unknown", nil, "Unknown app requested for this version (1) of the API.")
	}
	if function != "cpanel" {
		if args.Get("api.version") != "1" {
			return `{"status":0,"statusmsg":"WHM API 0 is not what was wanted"}`
		}
		args.Del("api.version")
		return p.whm(function, args)
	}
	user, module, function, version := args.Get("cpanel_jsonapi_user"), args.Get("cpanel_jsonapi_module"), args.Get("cpanel_jsonapi_func"), args.Get("cpanel_jsonapi_apiversion")
	if version != "3" {
		return `{"cpanelresult":{"apiversion":2,"error":"This fake knows UAPI only.","data":[]}}`
	}
	for name := range args {
		if strings.HasPrefix(name, "cpanel_jsonapi_") {
			args.Del(name)
		}
	}
	return p.uapi(user, module, function, args)
}

// cpanelCommand answers "uapi --user=USER --output=json MODULE FUNCTION
// NAME=VALUE…" and "whmapi1 --output=json FUNCTION NAME=VALUE…". Values are
// URI-encoded, as the documentation wants them; a plus sign is taken for a
// space, as the sternest decoder would.
func (p *Panel) cpanelCommand(name string, args []string) (answer string, status int) {
	options := make(map[string]string)
	var words []string
	for _, arg := range args {
		if option, ok := strings.CutPrefix(arg, "--"); ok && len(words) == 0 {
			k, v, _ := strings.Cut(option, "=")
			options[k] = v
		} else {
			words = append(words, arg)
		}
	}
	want := 1
	if name == "uapi" {
		want = 2
	}
	if options["output"] != "json" || len(words) < want || len(options) != want {
		return "Usage: " + name + " --output=json ...", 1
	}
	values := make(url.Values)
	for _, word := range words[want:] {
		k, v, ok := strings.Cut(word, "=")
		decoded, err := url.QueryUnescape(v)
		if !ok || err != nil || values.Has(k) {
			return "Usage: NAME=VALUE, URI-encoded", 1
		}
		values.Set(k, decoded)
	}
	if name == "uapi" {
		return p.uapi(options["user"], words[0], words[1], values), 0
	}
	return p.whm(words[0], values), 0
}

// uapiAnswer is an answer in UAPI's shape; a reason makes it a failure.
func uapiAnswer(function string, data any, reason string) string {
	result := map[string]any{"data": data, "errors": nil, "messages": nil, "metadata": map[string]any{}, "status": 1, "warnings": nil}
	if reason != "" {
		result["status"], result["errors"], result["data"] = 0, []string{reason}, nil
	}
	return encode(map[string]any{"apiversion": 3, "func": function, "module": "Email", "result": result})
}

// whm is an answer in WHM API 1's shape; a reason makes it a failure.
func whm(function string, data any, reason string) string {
	metadata := map[string]any{"command": function, "reason": "OK", "result": 1, "version": 1}
	if reason != "" {
		metadata["reason"], metadata["result"] = reason, 0
	}
	answer := map[string]any{"metadata": metadata}
	if data != nil {
		answer["data"] = data
	}
	return encode(answer)
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps, texts and numbers always can be
	}
	return string(text)
}

// parameters says what a function documents: a name ends with ? if it may be
// left out.
type parameters []string

// check returns what is wrong with the arguments.
func (ps parameters) check(args url.Values) string {
	var known []string
	for _, name := range ps {
		name, optional := strings.CutSuffix(name, "?")
		known = append(known, name)
		if !optional && args.Get(name) == "" {
			return fmt.Sprintf("The parameter “%s” is required.", name)
		}
	}
	for name, values := range args {
		if !slices.Contains(known, name) || len(values) != 1 {
			return fmt.Sprintf("The parameter “%s” is not documented, or given twice.", name)
		}
	}
	return ""
}

// uapiFunctions are the functions of UAPI's module Email that are faked, with
// their documented parameters (https://api.docs.cpanel.net/openapi/cpanel/operation/NAME/).
var uapiFunctions = map[string]parameters{
	"suspend_outgoing":   {"email"},
	"unsuspend_outgoing": {"email"},
	"hold_outgoing":      {"email"},
	"release_outgoing":   {"email"},
	"suspend_login":      {"email"},
	"unsuspend_login":    {"email"},
	"passwd_pop":         {"email", "password", "domain?"},
	"list_pops_with_disk": {
		"domain?", "email?", "get_restrictions?", "infinityimg?", "infinitylang?", "maxaccounts?", "no_disk?", "no_validate?", "raw?", "regex?", "skip_main?",
	},
	"list_forwarders":  {"domain", "regex?"},
	"delete_forwarder": {"address", "forwarder"},
	"add_forwarder":    {"domain", "email", "fwdopt", "failmsgs?", "fwdemail?", "fwdsystem?", "pipefwd?"},
}

// uapi runs a function of UAPI's as a cPanel account.
func (p *Panel) uapi(user, module, function string, args url.Values) (answer string) {
	err := p.Edit(func(s *State) {
		documented, ok := uapiFunctions[function]
		wrong := documented.check(args)
		switch {
		case s.Trouble == Fail:
			answer = uapiAnswer(function, nil, Reason)
		case s.Trouble == OtherCall:
			answer = uapiAnswer("list_pops", []any{}, "")
		case s.Accounts[user] == nil:
			answer = whm("cpanel", nil, fmt.Sprintf("The user “%s” does not exist.", user)) // assumed
		case module != "Email" || !ok:
			answer = uapiAnswer(function, nil, fmt.Sprintf("The system could not find the function “%s” in the module “%s”.", function, module))
		case wrong != "":
			answer = uapiAnswer(function, nil, wrong)
		default:
			data, reason := s.email(user, function, args)
			answer = uapiAnswer(function, data, reason)
		}
	})
	if err != nil {
		panic(err)
	}
	return answer
}

// email runs a function that is documented, with the parameters that are.
func (s *State) email(user, function string, args url.Values) (data any, reason string) {
	address := args.Get("email")
	switch function {
	case "list_pops_with_disk":
		return s.pops(user, args), ""
	case "list_forwarders":
		return s.forwarders(user, args.Get("domain"))
	case "add_forwarder":
		return s.addForwarder(user, args)
	case "delete_forwarder":
		return s.deleteForwarder(user, Forward{args.Get("address"), args.Get("forwarder")})
	case "passwd_pop":
		if domain := args.Get("domain"); domain != "" && !strings.Contains(address, "@") {
			address += "@" + domain
		}
	}
	m := s.mailbox(user, address)
	if m == nil {
		return nil, fmt.Sprintf("You do not have an email account named “%s”.", address)
	}
	switch function {
	case "passwd_pop":
		if strings.HasPrefix(args.Get("password"), "weak") {
			return nil, fmt.Sprintf("The password “%s” is too weak: %[1]s", args.Get("password"))
		}
		m.Password = args.Get("password")
	case "suspend_outgoing":
		return 1, s.turn(&m.Suspended, true, address)
	case "unsuspend_outgoing":
		return nil, s.turn(&m.Suspended, false, address)
	case "hold_outgoing":
		return nil, s.turn(&m.Held, true, address)
	case "release_outgoing":
		return nil, s.turn(&m.Held, false, address)
	case "suspend_login":
		return nil, s.turn(&m.NoLogin, true, address)
	case "unsuspend_login":
		return nil, s.turn(&m.NoLogin, false, address)
	}
	return nil, ""
}

func (s *State) turn(what *bool, on bool, whose string) (reason string) {
	if s.AlreadyIsError && *what == on {
		return fmt.Sprintf("“%s” is already so.", whose)
	}
	*what = on
	return ""
}

// mailbox is the account's mailbox of that address, nil if it has none.
func (s *State) mailbox(user, address string) *Mailbox {
	_, domain, ok := strings.Cut(address, "@")
	if !ok || s.Domains[domain] != user {
		return nil
	}
	return s.Mailboxes[address]
}

// pops lists mailboxes, and the account itself. Its filter by name lets
// through those that begin alike (assumed, as the sternest case).
func (s *State) pops(user string, args url.Values) []any {
	list := []any{map[string]any{"email": "Main Account", "login": user, "domain": "", "suspended_login": 0}}
	for _, address := range slices.Sorted(maps.Keys(s.Mailboxes)) {
		m := s.Mailboxes[address]
		local, domain, _ := strings.Cut(address, "@")
		if s.Domains[domain] != user || args.Get("domain") != "" && domain != args.Get("domain") || !strings.HasPrefix(local, args.Get("email")) {
			continue
		}
		item := map[string]any{"email": address, "login": address, "user": local, "domain": domain, "diskquota": "unlimited", "suspended_login": number(m.NoLogin), "suspended_incoming": 0}
		if args.Get("get_restrictions") == "1" {
			item["suspended_outgoing"], item["hold_outgoing"] = number(m.Suspended), number(m.Held)
			item["has_suspended"] = number(m.Suspended || m.Held || m.NoLogin)
		}
		list = append(list, item)
	}
	return list
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *State) forwarders(user, domain string) (data any, reason string) {
	if s.Domains[domain] != user {
		return nil, fmt.Sprintf("You do not own the domain “%s”.", domain)
	}
	list := []any{}
	for _, f := range s.Forwards {
		if strings.HasSuffix(f.Dest, "@"+domain) {
			list = append(list, map[string]any{
				"dest": f.Dest, "forward": f.Forward, "html_dest": f.Dest, "html_forward": f.Forward,
				"uri_dest": url.QueryEscape(f.Dest), "uri_forward": url.QueryEscape(f.Forward),
			})
		}
	}
	return list, ""
}

func (s *State) addForwarder(user string, args url.Values) (data any, reason string) {
	domain, email := args.Get("domain"), args.Get("email")
	switch {
	case s.Domains[domain] != user || !strings.HasSuffix(email, "@"+domain):
		return nil, fmt.Sprintf("You do not own the domain “%s”.", domain)
	case args.Get("fwdopt") != "fwd" || args.Get("fwdemail") == "":
		return nil, "This fake knows forwarding to an address only."
	case s.AlreadyIsError && slices.Contains(s.Forwards, Forward{email, args.Get("fwdemail")}):
		return nil, fmt.Sprintf("“%s” is forwarded there already.", email)
	}
	for to := range strings.SplitSeq(args.Get("fwdemail"), ",") { // "a comma-separated list"
		if f := (Forward{email, to}); !slices.Contains(s.Forwards, f) {
			s.Forwards = append(s.Forwards, f)
		}
	}
	return []any{map[string]any{"domain": domain, "email": email, "forward": args.Get("fwdemail")}}, ""
}

func (s *State) deleteForwarder(user string, f Forward) (data any, reason string) {
	_, domain, _ := strings.Cut(f.Dest, "@")
	i := slices.Index(s.Forwards, f)
	if s.Domains[domain] != user || i < 0 {
		return nil, fmt.Sprintf("There is no forwarder from “%s” to “%s”.", f.Dest, f.Forward)
	}
	s.Forwards = slices.Delete(s.Forwards, i, i+1)
	return nil, ""
}

// whmFunctions are the functions of WHM API 1 that are faked, with their
// documented parameters (https://api.docs.cpanel.net/openapi/whm/operation/NAME/).
var whmFunctions = map[string]parameters{
	"getdomainowner":           {"domain"},
	"accountsummary":           {"user?", "domain?"},
	"listresellers":            {},
	"suspend_outgoing_email":   {"user"},
	"unsuspend_outgoing_email": {"user"},
	"hold_outgoing_email":      {"user"},
	"release_outgoing_email":   {"user"},
}

// whm runs a function of WHM's as root.
func (p *Panel) whm(function string, args url.Values) (answer string) {
	err := p.Edit(func(s *State) {
		documented, ok := whmFunctions[function]
		wrong := documented.check(args)
		switch {
		case s.Trouble == Fail:
			answer = whm(function, nil, Reason)
		case s.Trouble == OtherCall:
			answer = whm("version", map[string]any{"version": "11.138.0.10"}, "")
		case !ok:
			answer = whm(function, nil, fmt.Sprintf("Unknown app (“%s”) requested for this version (1) of the API.", function))
		case wrong != "":
			answer = whm(function, nil, wrong)
		default:
			data, reason := s.server(function, args)
			answer = whm(function, data, reason)
		}
	})
	if err != nil {
		panic(err)
	}
	return answer
}

func (s *State) server(function string, args url.Values) (data any, reason string) {
	user := args.Get("user")
	switch function {
	case "getdomainowner":
		owner, ok := s.Domains[args.Get("domain")]
		if !ok {
			return map[string]any{"user": nil}, "" // assumed
		}
		return map[string]any{"user": owner}, ""
	case "listresellers":
		return map[string]any{"reseller": s.Resellers}, ""
	}
	a := s.Accounts[user]
	if a == nil || user == "root" {
		return nil, fmt.Sprintf("Account does not exist: “%s”.", user) // "You cannot suspend the root user's outgoing email"
	}
	switch function {
	case "accountsummary":
		return map[string]any{"acct": []any{map[string]any{
			"user": user, "owner": a.Owner, "outgoing_mail_hold": number(a.Held), "outgoing_mail_suspended": number(a.Suspended), "suspended": 0,
		}}}, ""
	case "suspend_outgoing_email":
		return nil, s.turn(&a.Suspended, true, user)
	case "unsuspend_outgoing_email":
		return nil, s.turn(&a.Suspended, false, user)
	case "hold_outgoing_email":
		return nil, s.turn(&a.Held, true, user)
	case "release_outgoing_email":
		return nil, s.turn(&a.Held, false, user)
	}
	return nil, "not faked"
}
