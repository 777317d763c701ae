package faults_test

func consume() bool { return false }
