// Package mysqlstate keeps the stores of package state in MySQL 8 or MariaDB 10.6 and later, for what must last and be
// queried.
//
// A driver starts without its server and makes its tables when the server is there; until then operations report
// state.ErrUnavailable. The server's clock decides what has expired. A single change is one statement, with its
// condition in the statement, so that it is right at any isolation level; several are one transaction that locks its
// rows in the order of their keys. Callers who make single changes at the same time share such transactions.
//
// MySQL refuses a value that has a number beyond the range of a 64-bit float, such as 1e400; MariaDB keeps it to the digit.
//
// Sorting compares as many bytes of a string as the server's max_sort_length says, 1024 by default.
package mysqlstate
