// Package accountsapi is the accounts service as its openapi.yaml describes it: requests, answers, the server's
// stub and a client, all generated.
package accountsapi

//go:generate oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
