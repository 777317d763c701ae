// Package sagasapi is the sagas service as its openapi.yaml describes it: requests, answers, the server's stub and a client, all
// generated.
package sagasapi

//go:generate oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
