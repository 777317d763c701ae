// Package guardtest makes authorities and certificates for tests of what is guarded.
package guardtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority signs certificates.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

// NewAuthority makes one of its own.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	key := newKey(tb)
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(tb, err)
	cert, err := x509.ParseCertificate(der)
	must(tb, err)
	return &Authority{key: key, cert: cert, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// Write puts the certificates of authorities into a file, in place of what is there.
func Write(tb testing.TB, file string, authorities ...*Authority) {
	tb.Helper()
	var text []byte
	for _, a := range authorities {
		text = append(text, a.pem...)
	}
	replace(tb, file, text)
}

// Issue writes a certificate with its key into two files, in place of what is there. It is valid on loopback for these DNS
// names, of which the first is the app-id, until the given time from now, which may be over.
func (a *Authority) Issue(tb testing.TB, certFile, keyFile string, lifetime time.Duration, names ...string) {
	tb.Helper()
	key := newKey(tb)
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "not looked at"}, NotBefore: time.Now().Add(-24 * time.Hour),
		NotAfter: time.Now().Add(lifetime), DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	must(tb, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(tb, err)
	replace(tb, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	replace(tb, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// Files are what one node is given.
type Files struct{ Cert, Key, Authority string }

// Node issues a certificate for an app-id, and for localhost, into files of their own.
func (a *Authority) Node(tb testing.TB, appID string) Files {
	tb.Helper()
	folder := tb.TempDir()
	f := Files{Cert: filepath.Join(folder, "tls.crt"), Key: filepath.Join(folder, "tls.key"), Authority: filepath.Join(folder, "ca.crt")}
	a.Issue(tb, f.Cert, f.Key, time.Hour, appID, "localhost")
	Write(tb, f.Authority, a)
	return f
}

// replace writes a file as a whole: who reads it sees the old text or the new one.
func replace(tb testing.TB, file string, text []byte) {
	tb.Helper()
	must(tb, os.WriteFile(file+".new", text, 0o600))
	must(tb, os.Rename(file+".new", file))
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	must(tb, err)
	return n
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
