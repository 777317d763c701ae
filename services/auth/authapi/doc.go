// Package authapi is the auth service as its openapi.yaml describes it: requests, answers, the server's
// stub and a client, all generated.
package authapi

//go:generate oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
