package guard

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
)

// Certificates are a node's own, with its key, and the authority that signs those of all nodes: three PEM files, read again
// when they change. The first DNS name of a certificate is its app-id.
type Certificates struct{ current *watched[*credentials] }

// credentials are what three files held at one time.
type credentials struct {
	own       tls.Certificate
	authority *x509.CertPool
	server    *tls.Config
}

// NewCertificates reads the files. The app-id is the one that the certificate has to be for; "" for any. The logger hears of
// files that changed; nil: nobody.
func NewCertificates(certFile, keyFile, caFile, appID string, log *slog.Logger) (*Certificates, error) {
	load := func() (*credentials, error) { return readCredentials(certFile, keyFile, caFile, appID) }
	w, err := watch("the mesh's certificates", []string{certFile, keyFile, caFile}, load, log)
	if err != nil {
		return nil, err
	}
	return &Certificates{w}, nil
}

func readCredentials(certFile, keyFile, caFile, appID string) (*credentials, error) {
	own, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	switch named := AppOf(leaf); {
	case named == "":
		return nil, fmt.Errorf("certificate %s names no app-id: sign one whose first DNS name is it (subjectAltName)", certFile)
	case appID != "" && named != appID:
		return nil, fmt.Errorf("certificate %s is for the app-id %q, and this node is %q: sign one for it, or set --app-id", certFile, named, appID)
	}
	authority, err := ReadAuthority(caFile)
	if err != nil {
		return nil, err
	}
	if err := verify(leaf, own.Certificate[1:], authority); err != nil {
		return nil, fmt.Errorf("certificate %s is one that no other node would take, by the authority of %s: %w; sign one with it", certFile, caFile, err)
	}
	c := &credentials{own: own, authority: authority}
	c.server = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{own},
		// Who has none is let in to the probes, and may have a token.
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: authority,
	}
	return c, nil
}

// verify asks of a node's own certificate what other nodes ask of it, whether they call it or are called.
func verify(leaf *x509.Certificate, between [][]byte, authority *x509.CertPool) error {
	o := x509.VerifyOptions{DNSName: AppOf(leaf), Roots: authority, Intermediates: x509.NewCertPool()}
	for _, der := range between {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		o.Intermediates.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		o.KeyUsages = []x509.ExtKeyUsage{usage}
		if _, err := leaf.Verify(o); err != nil {
			return err
		}
	}
	return nil
}

// ReadAuthority reads a PEM file of certificates that sign others.
func ReadAuthority(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authority's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate of an authority in PEM", file)
	}
	return pool, nil
}

// AppOf is the app-id that a certificate is for, its first DNS name.
func AppOf(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 {
		return ""
	}
	return c.DNSNames[0]
}

// Server is how a node answers. It takes what the files hold when a connection begins. A client certificate is asked for, and
// has to be right when there is one.
func (c *Certificates) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.get().server, nil },
	}
}

// Client is how a node connects to an instance of an app-id, whose certificate has to be for that app-id: wherever the
// registry says that it is, another one is not taken for it.
func (c *Certificates) Client(appID string) *tls.Config {
	now := c.current.get()
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: appID, RootCAs: now.authority, Certificates: []tls.Certificate{now.own},
		// Verified already to be for this name in any place; it also has to be its app-id.
		VerifyConnection: func(s tls.ConnectionState) error {
			if app := AppOf(s.PeerCertificates[0]); app != appID {
				return fmt.Errorf("the instance's certificate is for the app-id %q, and %q was called", app, appID)
			}
			return nil
		},
	}
}

// certified is the app-id of a client certificate, which the handshake has verified.
func certified(s *tls.ConnectionState) (app string, given bool) {
	if s == nil || len(s.VerifiedChains) == 0 {
		return "", false
	}
	return AppOf(s.PeerCertificates[0]), true
}
