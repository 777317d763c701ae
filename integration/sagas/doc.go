// Package sagas runs sagas on MariaDB and RabbitMQ, and kills their process at every step: before and after each append, publishing, call and
// acknowledgement, one after another. Each instance has to end, and each step to be done, and undone, once. `make faults` runs it whole and
// writes its part of docs/faults.md.
package sagas
