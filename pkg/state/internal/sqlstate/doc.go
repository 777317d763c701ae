// Package sqlstate is what the SQL engines of package state share: composing statements with bound values, turning
// filters and sorts into conditions by a Dialect, checking table names, making ETags, migrating tables, and having
// callers share transactions.
package sqlstate
