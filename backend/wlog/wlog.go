package wlog
