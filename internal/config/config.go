// Package config is the configuration file: its fields, their defaults, and
// what makes them wrong. Only cmd and internal/app import it; every other
// part is given plain values.
package config

import (
	"path/filepath"
	"time"
)

// Config is the whole configuration file. config.example.yaml at the root of
// the repository describes each field for operators.
type Config struct {
	Mode     Mode     `yaml:"mode"`
	State    string   `yaml:"state"`
	Hostname string   `yaml:"hostname"`
	Logs     []Log    `yaml:"logs"`
	Accounts Accounts `yaml:"accounts"`
	GeoIP    GeoIP    `yaml:"geoip"`
	Queue    Queue    `yaml:"queue"`
	Gate     Gate     `yaml:"gate"`
	Postfix  Postfix  `yaml:"postfix"`
	Exim     Exim     `yaml:"exim"`
	Dovecot  Dovecot  `yaml:"dovecot"`
	CPanel   CPanel   `yaml:"cpanel"`
	Plesk    Plesk    `yaml:"plesk"`
	Reset    Reset    `yaml:"reset"`
	Rules    Rules    `yaml:"rules"`
	DNSBL    DNSBL    `yaml:"dnsbl"`
	Agents   Agents   `yaml:"agents"`
	Hub      Hub      `yaml:"hub"`
	API      API      `yaml:"api"`
	Notify   Notify   `yaml:"notify"`
	Keep     Keep     `yaml:"keep"`
}

// Mode says whether decisions are carried out.
type Mode string

// The modes. A new installation observes.
const (
	ModeObserve Mode = "observe"
	ModeEnforce Mode = "enforce"
)

// A Log is one place that mail server log lines come from: a file or the
// journal.
type Log struct {
	Path     string   `yaml:"path"`
	Journal  []string `yaml:"journal"`
	TimeZone string   `yaml:"time_zone"`
}

// Name tells logs apart in positions, metrics and messages.
func (l Log) Name() string {
	if l.Path != "" {
		return l.Path
	}
	return "journal"
}

// GeoIP names databases in MaxMind's format that say where clients are. Empty:
// none; networks alone are told apart.
type GeoIP struct {
	Country string `yaml:"country"`
	ASN     string `yaml:"asn"`
}

// Accounts says who is who.
type Accounts struct {
	Realm   string   `yaml:"realm"`
	Shared  []string `yaml:"shared"`
	Trusted []string `yaml:"trusted"`
	Exempt  []string `yaml:"exempt"`
	Aliases Aliases  `yaml:"aliases"`
}

// Aliases is an optional source of further addresses of the accounts.
type Aliases struct {
	File    string   `yaml:"file"`
	Driver  string   `yaml:"driver"`
	DSN     Secret   `yaml:"dsn"`
	Query   string   `yaml:"query"`
	Refresh Duration `yaml:"refresh"`
}

// Queue says which mail queue is sampled, and how often.
type Queue struct {
	Postfix string   `yaml:"postfix"`
	Exim    string   `yaml:"exim"`
	Every   Duration `yaml:"every"`
	Timeout Duration `yaml:"timeout"`
}

// Gate is where mail servers ask.
type Gate struct {
	Listen         []string `yaml:"listen"`
	Milter         []string `yaml:"milter"`
	Exim           []string `yaml:"exim"`
	MaxConnections int      `yaml:"max_connections"`
	Throttle       string   `yaml:"throttle"`
	BacklogMax     Duration `yaml:"backlog_max"`
	ThrottleEvery  Duration `yaml:"throttle_every"`
	ThrottleBurst  int      `yaml:"throttle_burst"`
	RejectText     string   `yaml:"reject_text"`
	ThrottleText   string   `yaml:"throttle_text"`
	HoldText       string   `yaml:"hold_text"`
}

// Postfix is the tables that Postfix reads by itself, and its commands.
type Postfix struct {
	SASLAccess   string   `yaml:"sasl_access"`
	SASLAway     string   `yaml:"sasl_away"`
	LocalAccess  string   `yaml:"local_access"`
	ClientAccess string   `yaml:"client_access"`
	SubmitUsers  string   `yaml:"submit_users"`
	TableType    string   `yaml:"table_type"`
	ConfigDir    string   `yaml:"config_dir"`
	Postsuper    []string `yaml:"postsuper"`
	Timeout      Duration `yaml:"timeout"`
}

// Exim is the files that Exim looks accounts up in, and its command.
type Exim struct {
	BlockFile  string   `yaml:"block_file"`
	HoldFile   string   `yaml:"hold_file"`
	AwayFile   string   `yaml:"away_file"`
	Command    []string `yaml:"command"`
	ConfigFile string   `yaml:"config_file"`
	Timeout    Duration `yaml:"timeout"`
}

// Dovecot is the file of logins that Dovecot refuses, and its command.
type Dovecot struct {
	DenyFile   string   `yaml:"deny_file"`
	Doveadm    []string `yaml:"doveadm"`
	ConfigFile string   `yaml:"config_file"`
	Timeout    Duration `yaml:"timeout"`
}

// CPanel is how a cPanel server is told.
type CPanel struct {
	Use          bool     `yaml:"use"`
	URL          string   `yaml:"url"`
	User         string   `yaml:"user"`
	Token        Secret   `yaml:"token"`
	UAPI         []string `yaml:"uapi"`
	WHMAPI       []string `yaml:"whmapi"`
	UserDomains  string   `yaml:"user_domains"`
	SuspendLogin bool     `yaml:"suspend_login"`
	Timeout      Duration `yaml:"timeout"`
}

// Plesk is how a Plesk server is told.
type Plesk struct {
	Use     bool     `yaml:"use"`
	Command []string `yaml:"command"`
	Limit   string   `yaml:"limit"`
	Timeout Duration `yaml:"timeout"`
}

// Reset is where passwords are changed, and how new ones reach their owners.
type Reset struct {
	PasswdFile PasswdFile   `yaml:"passwd_file"`
	SQL        PasswordSQL  `yaml:"sql"`
	Command    []string     `yaml:"command"`
	Webhook    Endpoint     `yaml:"webhook"`
	Sessions   bool         `yaml:"sessions"`
	Revoke     []string     `yaml:"revoke"`
	Handover   HandoverWays `yaml:"handover"`
}

// PasswdFile is a passwd-file of Dovecot's.
type PasswdFile struct {
	Path    string   `yaml:"path"`
	Key     string   `yaml:"key"`
	Scheme  string   `yaml:"scheme"`
	Domains []string `yaml:"domains"`
}

// PasswordSQL is a database of mailboxes.
type PasswordSQL struct {
	Driver  string   `yaml:"driver"`
	DSN     Secret   `yaml:"dsn"`
	Query   string   `yaml:"query"`
	Select  string   `yaml:"select"`
	Scheme  string   `yaml:"scheme"`
	Domains []string `yaml:"domains"`
}

// HandoverWays is how a new password reaches its owner; none of them shows it
// once to who asked for it.
type HandoverWays struct {
	Command   []string `yaml:"command"`
	Directory string   `yaml:"directory"`
	Webhook   Endpoint `yaml:"webhook"`
}

// An Endpoint is a URL and the secret that requests to it are signed with.
type Endpoint struct {
	URL    Secret `yaml:"url"`
	Secret Secret `yaml:"secret"`
}

// Rules are the operator's rule files and the limits around them.
type Rules struct {
	Dir        string   `yaml:"dir"`
	WrongStops float64  `yaml:"wrong_blocks_per_100k_mailbox_days"`
	BlastMax   int      `yaml:"blast_max"`
	BlastPer   Duration `yaml:"blast_per"`
	StaleAfter Duration `yaml:"stale_after"`
}

// DNSBL is how DNS block lists are asked, and what is watched on them.
type DNSBL struct {
	Watch       bool              `yaml:"watch"`
	Addresses   []string          `yaml:"addresses"`
	Domains     []string          `yaml:"domains"`
	Logs        bool              `yaml:"logs"`
	Interfaces  bool              `yaml:"interfaces"`
	SPF         bool              `yaml:"spf"`
	Risk        ListRisk          `yaml:"risk"`
	Hook        ListHook          `yaml:"hook"`
	Resolvers   []string          `yaml:"resolvers"`
	OwnNetworks []string          `yaml:"own_networks"`
	OwnServers  []string          `yaml:"own_servers"`
	Catalogue   string            `yaml:"catalogue"`
	Keys        map[string]Secret `yaml:"keys"`
}

// ListRisk says what is done before an address is listed.
type ListRisk struct {
	ActAt      float64  `yaml:"act_at"`
	Traps      []string `yaml:"traps"`
	Complaints bool     `yaml:"complaints"`
	Clients    []string `yaml:"clients"`
	Neighbours bool     `yaml:"neighbours"`
}

// ListHook is a program that takes the mail of a listed address elsewhere.
type ListHook struct {
	Command  []string `yaml:"command"`
	Exposure float64  `yaml:"exposure"`
	Timeout  Duration `yaml:"timeout"`
}

// Agents is where the agents of a fleet report, if this is their hub.
type Agents struct {
	Listen      string   `yaml:"listen"`
	JournalMax  int      `yaml:"journal_max_mb"`
	SilentAfter Duration `yaml:"silent_after"`
}

// Hub is whom an agent reports to.
type Hub struct {
	Address   string   `yaml:"address"`
	SpoolMax  int      `yaml:"spool_max_mb"`
	SpoolKeep Duration `yaml:"spool_keep"`
	Fuse      int      `yaml:"fuse_recipients"`
}

// API is the JSON interface that the commands use.
type API struct {
	Listen    string `yaml:"listen"`
	Token     Secret `yaml:"token"`
	TokenFile string `yaml:"token_file"`
}

// Notify is how people are told.
type Notify struct {
	Mail     Mail     `yaml:"mail"`
	Webhook  Webhook  `yaml:"webhook"`
	From     string   `yaml:"from_action"`
	StormMax int      `yaml:"storm_max"`
	StormPer Duration `yaml:"storm_per"`
}

// Mail is the e-mail channel.
type Mail struct {
	Server   string   `yaml:"server"`
	TLS      string   `yaml:"tls"`
	User     string   `yaml:"user"`
	Password Secret   `yaml:"password"`
	From     string   `yaml:"from"`
	To       []string `yaml:"to"`
	Timeout  Duration `yaml:"timeout"`
}

// Webhook is the webhook channel.
type Webhook struct {
	URL     Secret   `yaml:"url"`
	Secret  Secret   `yaml:"secret"`
	Timeout Duration `yaml:"timeout"`
}

// Keep is how long what is stored.
type Keep struct {
	Findings Duration `yaml:"findings"`
	Journal  Duration `yaml:"journal"`
	Accounts Duration `yaml:"accounts"`
}

// Default is the configuration of a new installation: it observes.
func Default() Config {
	return Config{
		Mode:  ModeObserve,
		State: "/var/lib/vedetta",
		Logs:  []Log{{Path: "/var/log/mail.log"}},
		Accounts: Accounts{
			Aliases: Aliases{Refresh: Duration(5 * time.Minute)},
		},
		Queue: Queue{Every: Duration(time.Minute), Timeout: Duration(30 * time.Second)},
		Gate: Gate{
			Listen:         []string{"inet:127.0.0.1:9998"},
			MaxConnections: 1000,
			Throttle:       "hold",
			BacklogMax:     Duration(12 * time.Hour),
			ThrottleEvery:  Duration(30 * time.Second),
			ThrottleBurst:  5,
			RejectText:     "Sending from this account is blocked after unusual activity; please contact support",
			ThrottleText:   "This account sends unusually much mail; please try again later",
			HoldText:       "Held for review after unusual activity",
		},
		Postfix: Postfix{ConfigDir: "/etc/postfix", Timeout: Duration(10 * time.Second)},
		Exim:    Exim{Timeout: Duration(30 * time.Second)},
		Dovecot: Dovecot{Timeout: Duration(10 * time.Second)},
		CPanel:  CPanel{User: "root", UserDomains: "/etc/userdomains", Timeout: Duration(10 * time.Second)},
		Plesk:   Plesk{Timeout: Duration(10 * time.Second)},
		Reset: Reset{
			PasswdFile: PasswdFile{Key: "{account}", Scheme: "SHA512-CRYPT"},
			SQL:        PasswordSQL{Scheme: "SHA512-CRYPT"},
			Sessions:   true,
		},
		Rules: Rules{
			WrongStops: 1,
			BlastMax:   20,
			BlastPer:   Duration(time.Hour),
			StaleAfter: Duration(15 * time.Minute),
		},
		DNSBL: DNSBL{Logs: true, Interfaces: true, SPF: true, Risk: ListRisk{Neighbours: true},
			Hook: ListHook{Exposure: 0.8, Timeout: Duration(30 * time.Second)}},
		Agents: Agents{JournalMax: 4096, SilentAfter: Duration(2 * time.Minute)},
		Hub:    Hub{SpoolMax: 1024, SpoolKeep: Duration(24 * time.Hour), Fuse: 500},
		API:    API{Listen: "127.0.0.1:9190"},
		Notify: Notify{
			Mail:     Mail{TLS: "starttls", Timeout: Duration(30 * time.Second)},
			Webhook:  Webhook{Timeout: Duration(10 * time.Second)},
			From:     "throttle",
			StormMax: 10,
			StormPer: Duration(5 * time.Minute),
		},
		Keep: Keep{
			Findings: Duration(90 * 24 * time.Hour),
			Journal:  Duration(365 * 24 * time.Hour),
			Accounts: Duration(180 * 24 * time.Hour),
		},
	}
}

// Database is the path of the SQLite file.
func (c Config) Database() string { return filepath.Join(c.State, "vedetta.db") }

// FleetDir is where a hub keeps its authority and its journal, and an agent its
// certificate.
func (c Config) FleetDir() string { return filepath.Join(c.State, "fleet") }

// TokenPath is where the API token is kept when none is configured.
func (c Config) TokenPath() string {
	if c.API.TokenFile != "" {
		return c.API.TokenFile
	}
	return filepath.Join(c.State, "api-token")
}
