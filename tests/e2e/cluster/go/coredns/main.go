// A CoreDNS of the plugins that a cluster's DNS uses; with all of upstream's it would bring in the
// clients of every cloud.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// The order is that in which a request passes them.
	dnsserver.Directives = []string{"health", "ready", "errors", "log", "cache", "hosts", "kubernetes"}
	coremain.Run()
}
