package hub

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lifetimes of certificates. An agent asks for its next one when a third is
// left.
const (
	caLasts    = 10 * 365 * 24 * time.Hour
	agentLasts = 30 * 24 * time.Hour
	hubLasts   = 90 * 24 * time.Hour
	backdated  = 7 * 24 * time.Hour // for clocks that are behind
)

// A CA is the hub's own certificate authority. Agents trust it and no other,
// and the hub trusts only what it has signed.
type CA struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// The files of an authority, and of an agent, in their directories. A key and
// its certificate are in one file, so that a crash never leaves one without the
// other.
const (
	caFile     = "ca.pem"
	caCertFile = "hub.crt" // at the agent
	agentFile  = "agent.pem"
)

// OpenCA reads the authority in dir, and makes one if there is none.
func OpenCA(dir string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	pair, err := readPair(filepath.Join(dir, caFile))
	if errors.Is(err, fs.ErrNotExist) {
		return newCA(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("certificate authority: %s cannot sign", filepath.Join(dir, caFile))
	}
	return &CA{Cert: pair.Leaf, key: key}, nil
}

func newCA(dir string) (*CA, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Vedetta hub"}, NotBefore: now.Add(-backdated), NotAfter: now.Add(caLasts),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	text, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, err
	}
	if err := writePair(filepath.Join(dir, caFile), text, key); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return &CA{Cert: cert, key: key}, nil
}

// Fingerprint is the SHA-256 of the authority's certificate, in hexadecimal. It
// is part of what an agent enrols with, so that it speaks to no other hub.
func (ca *CA) Fingerprint() string { return fingerprint(ca.Cert.Raw) }

func fingerprint(cert []byte) string {
	sum := sha256.Sum256(cert)
	return hex.EncodeToString(sum[:])
}

// signAgent gives an agent a certificate for the key of its request, a PKCS #10 in
// DER. What else the request says is of no interest. The certificate names the
// enrolment that it belongs to, and is worth nothing once there is a later one.
func (ca *CA) signAgent(request []byte, m Member) (cert *x509.Certificate, err error) {
	key, err := requestedKey(request)
	if err != nil {
		return nil, err
	}
	return ca.sign(key, &x509.Certificate{
		Subject: pkix.Name{CommonName: m.Agent, SerialNumber: m.Enrolment}, NotAfter: time.Now().Add(agentLasts), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// requestedKey is the key of a request whose sender has its other half.
func requestedKey(request []byte) (crypto.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if _, ok := r.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, errors.New("certificate request: not an ECDSA key")
	}
	return r.PublicKey, nil
}

func (ca *CA) sign(key crypto.PublicKey, template *x509.Certificate) (*x509.Certificate, error) {
	template.SerialNumber = serial()
	template.NotBefore = time.Now().Add(-backdated)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	text, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(text)
}

// Server makes a certificate for the hub itself. Agents check that the authority
// made it, for a server: under which of its names or addresses they reach it
// does not matter.
func (ca *CA) Server() (tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := ca.sign(key.Public(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "Vedetta hub"}, DNSNames: []string{hubName}, NotAfter: time.Now().Add(hubLasts),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw, ca.Cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// hubName is the name in the hub's certificate, whatever it is called in DNS.
const hubName = "hub.vedetta.internal"

// pool has the authority alone.
func pool(ca *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca)
	return p
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writePair writes a certificate and its key into a file.
func writePair(path string, cert []byte, key crypto.Signer) error {
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeAtomic(path, append(certPEM(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})...))
}

// readPair reads what writePair wrote.
func readPair(path string) (tls.Certificate, error) { return tls.LoadX509KeyPair(path, path) }

// writeAtomic writes a file that its owner alone may read, whole or not at all.
func writeAtomic(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// dialTimeout bounds how long the hub may take to answer a connection.
const dialTimeout = 10 * time.Second

var dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
