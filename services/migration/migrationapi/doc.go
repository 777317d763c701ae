// Package migrationapi is the migration service as its openapi.yaml describes it: requests, answers, the server's
// stub and a client, all generated.
package migrationapi

//go:generate oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
