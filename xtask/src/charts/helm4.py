"""Renders and lints charts with Helm 4: a list of jobs as JSON on standard input, a list of what came of each on standard output."""

import json
import sys

import helm_python as helm


def do(job):
    try:
        findings = []
        if job["lint"]:
            lint = helm.lint(job["chart"], job["values"], strict=True, namespace=job["namespace"])
            # 1 is advice, 2 a warning, 3 an error.
            findings = [message["error"] for message in lint["messages"] if message["severity"] > 1]
        with helm.Chart.load(job["chart"]) as chart:
            chart.validate_schema(job["values"])
            templates = chart.render(job["values"], name=job["release"], namespace=job["namespace"])
        return {"findings": findings, "templates": templates}
    except Exception as error:
        return {"error": str(error)}


json.dump([do(job) for job in json.load(sys.stdin)], sys.stdout)
