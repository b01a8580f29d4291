"""Checks rendered Kubernetes manifests without a cluster.

    manifests.py FILE...

Every object strictly against Kubernetes' own schemas, of the oldest and of newer
versions that the manifests are for, and against the rules below, which no schema
knows. Kinds that others define (cert-manager's, the Gateway API's) are checked
for unknown fields against the short table here. Prints what is wrong; ends with 1
then.
"""

import sys

import kubernetes_validate
import yaml

VERSIONS = ["1.30", "1.32", "1.35"]

# Fields of `spec` of kinds that Kubernetes does not define.
FOREIGN = {
    "cert-manager.io/v1 Issuer": {"ca", "selfSigned"},
    "cert-manager.io/v1 Certificate": {
        "isCA", "commonName", "secretName", "duration", "renewBefore", "privateKey",
        "usages", "dnsNames", "uris", "issuerRef",
    },
    "gateway.networking.k8s.io/v1 Gateway": {"gatewayClassName", "listeners"},
    "gateway.networking.k8s.io/v1 GRPCRoute": {"parentRefs", "hostnames", "rules"},
    "gateway.networking.k8s.io/v1alpha2 TLSRoute": {"parentRefs", "hostnames", "rules"},
    "gateway.networking.k8s.io/v1alpha3 BackendTLSPolicy": {"targetRefs", "validation"},
}


def schema_problems(thing):
    kind = f"{thing['apiVersion']} {thing['kind']}"
    if kind in FOREIGN:
        unknown = set(thing.get("spec", {})) - FOREIGN[kind]
        return [f"unknown fields {sorted(unknown)}"] if unknown else []
    problems = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            problems.append(f"{version}: {path}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            problems.append(f"{version}: {error}")
    return problems


def pod_problems(pod, labels, policies):
    """What every pod here must have: Pod Security `restricted`, and more."""
    must = {
        "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
        "enableServiceLinks": pod.get("enableServiceLinks") is False,
        "runAsNonRoot": pod.get("securityContext", {}).get("runAsNonRoot") is True,
        "runAsUser": pod.get("securityContext", {}).get("runAsUser", 0) > 0,
        "seccompProfile": pod.get("securityContext", {}).get("seccompProfile")
        == {"type": "RuntimeDefault"},
        "a NetworkPolicy that selects it": any(
            all(labels.get(name) == value for name, value in policy.items()) for policy in policies
        ),
    }
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        name, context = container["name"], container.get("securityContext", {})
        image = container["image"].rpartition("/")[2]
        ports = {port["name"] for port in container.get("ports", [])}
        must |= {
            f"{name}: allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            f"{name}: readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
            f"{name}: capabilities": context.get("capabilities") == {"drop": ["ALL"]},
            f"{name}: a readinessProbe": "readinessProbe" in container,
            f"{name}: requests": {"cpu", "memory"} <= set(container["resources"]["requests"]),
            f"{name}: a limit of memory": "memory" in container["resources"]["limits"],
            f"{name}: a version of its image": ":" in image and not image.endswith(":latest"),
            f"{name}: its environment in an order that works": ordered(container.get("env", [])),
        }
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            for how in ("tcpSocket", "httpGet"):
                port = container.get(probe, {}).get(how, {}).get("port", 0)
                must[f"{name}: the port of {probe}"] = not isinstance(port, str) or port in ports
        for mount in container.get("volumeMounts", []):
            must[f"{name}: a volume {mount['name']}"] = mount["name"] in volumes
    return [f"it needs {what}" for what, there in must.items() if not there]


def ordered(env):
    """$(NAME) knows only what stands before it."""
    known = set()
    for variable in env:
        value = variable.get("value", "")
        for part in value.split("$(")[1:]:
            if part.partition(")")[0] not in known:
                return False
        known.add(variable["name"])
    return True


def rules(things):
    policies = [
        thing["spec"]["podSelector"].get("matchLabels", {})
        for thing in things
        if thing["kind"] == "NetworkPolicy"
    ]
    for thing in things:
        where = f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["kind"] not in ("StatefulSet", "Deployment"):
            continue
        template = thing["spec"]["template"]
        pod = template["spec"]
        for claim in thing["spec"].get("volumeClaimTemplates", []):
            pod.setdefault("volumes", []).append({"name": claim["metadata"]["name"]})
        for problem in pod_problems(pod, template["metadata"]["labels"], policies):
            yield f"{where}: {problem}"
    for thing in things:
        where = f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["kind"] == "Service":
            ports = ports_of(thing["spec"].get("selector", {}), things)
            for port in thing["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if isinstance(target, str) and target not in ports:
                    yield f"{where}: no pod that it selects has a port {target}"
        if thing["kind"] == "NetworkPolicy":
            for scraped in scrapers(thing):
                if scraped != SCRAPES:
                    yield f"{where}: metrics are for pods with {SCRAPES} alone, not {scraped}"


# Who may come to the admin port.
SCRAPES = {"matchExpressions": [{"key": "simpul.dev/scrapes", "operator": "In", "values": ["true"]}]}


def scrapers(policy):
    """Who may come to the nodes' admin port, as the policy has it."""
    if policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") == "simpul":
        for rule in policy["spec"].get("ingress", []):
            if any(port["port"] == "admin" for port in rule.get("ports", [])):
                yield from (peer.get("podSelector") for peer in rule.get("from", [{}]))


def ports_of(selector, things):
    """The names of the ports of the pods that a Service selects."""
    names = set()
    for thing in things:
        template = thing.get("spec", {}).get("template", {})
        labels = template.get("metadata", {}).get("labels", {})
        if selector and selector.items() <= labels.items():
            for container in template["spec"]["containers"]:
                names |= {port["name"] for port in container.get("ports", [])}
    return names


def main(files):
    problems, count = [], 0
    for file in files:
        with open(file, encoding="utf-8") as opened:
            things = [thing for thing in yaml.safe_load_all(opened) if thing]
        count += len(things)
        for thing in things:
            where = f"{file}: {thing['kind']}/{thing['metadata']['name']}"
            problems += [f"{where}: {problem}" for problem in schema_problems(thing)]
        problems += [f"{file}: {problem}" for problem in rules(things)]
    print("\n".join(problems) if problems else f"{count} manifests are right")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
