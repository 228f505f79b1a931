"""Drives the lab's EC2 with boto3. Called by ec2_clients.rs as `ec2_clients.py CASE ENDPOINT`."""

import base64
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SUBNET_A, SUBNET_B = "subnet-0a", "subnet-0b"


def refused(code, call, **parameters):
    """Asserts that a call is refused with an error code, and answers the error."""
    try:
        call(**parameters)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        assert error.response["ResponseMetadata"]["RequestId"], error
        return error.response
    raise AssertionError(f"{call} was not refused with {code}")


def wait_for(what, ready):
    """Waits until `ready()` is true, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline, f"no {what} after ten seconds"
        time.sleep(0.05)


def instances_of(answer):
    return [i for r in answer["Reservations"] for i in r["Instances"]]


def by(ec2, name, *values):
    answer = ec2.describe_instances(Filters=[{"Name": name, "Values": list(values)}])
    return sorted(i["InstanceId"] for i in instances_of(answer))


def run(ec2, count, **more):
    parameters = {
        "LaunchTemplate": {"LaunchTemplateId": "lt-0123456789abcdef0", "Version": "$Latest"},
        "SubnetId": SUBNET_A,
        "InstanceType": "c7i.large",
        "MinCount": count,
        "MaxCount": count,
    }
    return ec2.run_instances(**(parameters | more))


def life(ec2):
    """One instance from launch to its end, and everything it is asked on the way."""
    tags = [{"Key": "cluster", "Value": "c1"}, {"Key": "node", "Value": "aws-0 <&> \"é\""}]
    answer = run(ec2, 1, ClientToken="t-1", TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    launched = answer["Instances"][0]
    instance_id, address = launched["InstanceId"], launched["PrivateIpAddress"]
    assert launched["State"] == {"Code": 0, "Name": "pending"}, launched
    assert address == "10.64.16.4", "AWS keeps the first four addresses"
    again = run(ec2, 1, ClientToken="t-1", TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    assert again["Instances"][0]["InstanceId"] == instance_id
    refused("IdempotentParameterMismatch", run, ec2=ec2, count=2, ClientToken="t-1")

    wait_for("running instance", lambda: by(ec2, "instance-state-name", "running") == [instance_id])
    described = instances_of(ec2.describe_instances(InstanceIds=[instance_id]))[0]
    own = {t["Key"]: t["Value"] for t in described["Tags"]}
    assert own == {
        "from-template": "yes", "cluster": "c1", "node": "aws-0 <&> \"é\"",
        "aws:ec2launchtemplate:id": "lt-0123456789abcdef0", "aws:ec2launchtemplate:version": "2",
    }, own
    interface = described["NetworkInterfaces"][0]
    assert interface["PrivateIpAddress"] == address
    assert interface["Attachment"]["DeviceIndex"] == 0
    assert interface["Attachment"]["NetworkCardIndex"] == 0
    assert described["PrivateDnsName"] == "ip-10-64-16-4.ec2.internal"
    assert described["SecurityGroups"][0]["GroupId"] == "sg-1"
    assert described["MetadataOptions"]["HttpTokens"] == "required"
    assert described["IamInstanceProfile"]["Arn"].endswith(":instance-profile/burst")
    assert described["Placement"]["AvailabilityZone"] == "us-east-1a"
    assert described["LaunchTime"].year >= 2020
    assert described["CpuOptions"] == {"CoreCount": 1, "ThreadsPerCore": 2}

    status = ec2.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"][0]
    assert status["InstanceStatus"]["Status"] == "initializing", status
    data = ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    assert base64.b64decode(data["UserData"]["Value"]) == b"#!/bin/sh\necho two\n", data
    behaviour = ec2.describe_instance_attribute(
        InstanceId=instance_id, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    assert ec2.get_console_output(InstanceId=instance_id)["Output"] == ""

    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": "Name", "Value": "aws-0"}])
    ec2.delete_tags(Resources=[instance_id], Tags=[{"Key": "node"}])
    rows = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [instance_id]}])["Tags"]
    names = {row["Key"] for row in rows if row["ResourceType"] == "instance"}
    assert "Name" in names and "node" not in names, names

    free = lambda: ec2.describe_subnets(SubnetIds=[SUBNET_A])["Subnets"][0]["AvailableIpAddressCount"]
    assert free() == 4096 - 5 - 1
    change = ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"][0]
    assert change["PreviousState"]["Name"] == "running"
    assert change["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    wait_for("terminated instance", lambda: by(ec2, "instance-state-name", "terminated") == [instance_id])
    assert free() == 4096 - 5, "the address went back"
    gone = instances_of(ec2.describe_instances(InstanceIds=[instance_id]))[0]
    assert "PrivateIpAddress" not in gone and gone["NetworkInterfaces"] == []
    assert gone["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert gone["StateTransitionReason"].startswith("User initiated (")
    assert ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"]


def search(ec2):
    """Filters and paging."""
    first = [i["InstanceId"] for i in run(ec2, 7)["Instances"]]
    spot = run(
        ec2, 2, InstanceMarketOptions={"MarketType": "spot"}, InstanceType="m7i.xlarge", ClientToken="spot-token",
    )
    spot_ids = sorted(i["InstanceId"] for i in spot["Instances"])
    everything = sorted(first + spot_ids)
    some = spot["Instances"][0]
    for name, value in [
        ("instance-type", "m7i.*"),
        ("instance-type", "m7?.xlarge"),
        ("instance-lifecycle", "spot"),
        ("client-token", "spot-token"),
        ("reservation-id", spot["ReservationId"]),
    ]:
        assert by(ec2, name, value) == spot_ids, name
    for name, value in [
        ("instance-id", some["InstanceId"]),
        ("private-ip-address", some["PrivateIpAddress"]),
        ("network-interface.addresses.private-ip-address", some["PrivateIpAddress"]),
        ("network-interface.network-interface-id", some["NetworkInterfaces"][0]["NetworkInterfaceId"]),
        ("private-dns-name", some["PrivateDnsName"]),
    ]:
        assert by(ec2, name, value) == [some["InstanceId"]], name
    for name, value in [
        ("subnet-id", SUBNET_A), ("vpc-id", "vpc-lab"), ("availability-zone", "us-east-1a"),
        ("image-id", "ami-0123456789abcdef0"), ("tag:from-template", "y*"), ("tag-key", "from-template"),
        ("network-interface.subnet-id", SUBNET_A), ("network-interface.vpc-id", "vpc-lab"),
        ("iam-instance-profile.arn", "*/burst"),
    ]:
        assert by(ec2, name, value) == everything, name
        assert by(ec2, name, "nothing") == [], name
    assert by(ec2, "instance-id", first[0], first[1]) == sorted(first[:2])
    refused("InvalidParameterValue", ec2.describe_instances, Filters=[{"Name": "subnet", "Values": ["x"]}])

    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(instances_of(page)) for page in pages] == [5, 4]
    assert sorted(i["InstanceId"] for page in pages for i in instances_of(page)) == everything
    refused("InvalidParameterCombination", ec2.describe_instances, InstanceIds=[first[0]], MaxResults=5)
    refused("InvalidParameterValue", ec2.describe_instances, MaxResults=4)
    refused("InvalidParameterValue", ec2.describe_instances, NextToken="rubbish!")


def refusals(ec2):
    """Error codes and their HTTP status."""
    unknown = "i-0123456789abcdef0"
    known = run(ec2, 1)["Instances"][0]["InstanceId"]
    answer = refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=[unknown])
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    refused("InvalidInstanceID.Malformed", ec2.describe_instances, InstanceIds=["i-zz"])
    refused("InvalidInstanceID.NotFound", ec2.terminate_instances, InstanceIds=[known, unknown])
    assert by(ec2, "instance-state-name", "shutting-down", "terminated") == [], "one unknown id fails all"
    refused("InvalidInstanceID.NotFound", ec2.create_tags, Resources=[unknown], Tags=[{"Key": "a", "Value": "b"}])
    refused("InvalidParameterValue", ec2.create_tags, Resources=[known], Tags=[{"Key": "aws:x", "Value": "b"}])
    many = [{"Key": f"k{n}", "Value": "v"} for n in range(51)]
    refused("TagLimitExceeded", ec2.create_tags, Resources=[known], Tags=many)
    dry = refused("DryRunOperation", run, ec2=ec2, count=1, DryRun=True)
    assert dry["ResponseMetadata"]["HTTPStatusCode"] == 412
    refused("DryRunOperation", ec2.terminate_instances, InstanceIds=[known], DryRun=True)
    refused("DryRunOperation", ec2.describe_instances, DryRun=True)
    refused("UnknownParameter", run, ec2=ec2, count=1, KernelId="aki-1")
    refused("InvalidAction", ec2.describe_vpcs)
    refused("InvalidSubnetID.NotFound", run, ec2=ec2, count=1, SubnetId="subnet-none")
    refused("InvalidParameterValue", run, ec2=ec2, count=1, InstanceType="zz9.plural")
    refused("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["zz9.plural"])
    refused("InvalidUserData.Malformed", run, ec2=ec2, count=1, UserData="x" * 16_385)
    template = {"LaunchTemplateId": "lt-00000000000000000"}
    refused("InvalidLaunchTemplateId.NotFound", run, ec2=ec2, count=1, LaunchTemplate=template)
    template = {"LaunchTemplateName": "none"}
    refused("InvalidLaunchTemplateName.NotFoundException", run, ec2=ec2, count=1, LaunchTemplate=template)
    template = {"LaunchTemplateName": "burst", "Version": "9"}
    refused("InvalidLaunchTemplateId.VersionNotFound", run, ec2=ec2, count=1, LaunchTemplate=template)
    # 172.16.0.0/28 has eleven addresses.
    refused("InsufficientFreeAddressesInSubnet", run, ec2=ec2, count=12, SubnetId="subnet-tiny")
    few = run(ec2, 1, SubnetId="subnet-tiny", MaxCount=12)["Instances"]
    assert len(few) == 11, "MaxCount falls to what there is"
    full = refused("InsufficientInstanceCapacity", run, ec2=ec2, count=4, InstanceType="c6i.large")
    assert full["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert len(run(ec2, 3, InstanceType="c6i.large")["Instances"]) == 3
    assert len([i for i in instances_of(ec2.describe_instances())]) == 1 + 11 + 3


def fleet_request(total, kind="on-demand", **more):
    overrides = [
        {"InstanceType": t, "SubnetId": s}
        for t in ("c7i.large", "m7i.large")
        for s in (SUBNET_A, SUBNET_B)
    ]
    template = {"LaunchTemplateName": "burst", "Version": "$Default"}
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": template, "Overrides": overrides}],
        "TargetCapacitySpecification": {"TotalTargetCapacity": total, "DefaultTargetCapacityType": kind},
    } | more


def throttled_fleet(ec2):
    """Few tokens are left in the bucket of launched instances: a fleet of 200 is throttled in the middle."""
    answer = ec2.create_fleet(**fleet_request(200))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    [launched] = [len(i["InstanceIds"]) for i in answer["Instances"]]
    assert 3 <= launched < 200, "two tokens come back each second"
    assert {e["ErrorCode"] for e in answer["Errors"]} == {"RequestLimitExceeded"}, answer
    assert all(e["Lifecycle"] == "on-demand" for e in answer["Errors"]), answer
    # RunInstances draws on the same bucket; 900 tokens would be minutes away.
    refused("RequestLimitExceeded", run, ec2=ec2, count=900)


def fleet(ec2):
    """A fleet over four pools: us-east-1a has three c7i.large, us-east-1b none, the rest is unlimited."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "request", "Value": "r1"}]}]
    request = fleet_request(5, TagSpecifications=tags, ClientToken="fleet-1")
    answer = ec2.create_fleet(**request)
    got = {
        (i["InstanceType"], i["AvailabilityZone"]): len(i["InstanceIds"]) for i in answer["Instances"]
    }
    assert got == {("c7i.large", "us-east-1a"): 3, ("m7i.large", "us-east-1a"): 2}, got
    entry = answer["Instances"][0]
    assert entry["Lifecycle"] == "on-demand"
    used = entry["LaunchTemplateAndOverrides"]
    assert used["LaunchTemplateSpecification"] == {"LaunchTemplateId": "lt-0123456789abcdef0", "Version": "1"}
    assert used["Overrides"] == {"InstanceType": "c7i.large", "SubnetId": SUBNET_A}
    errors = [(e["ErrorCode"], e["LaunchTemplateAndOverrides"]["Overrides"]["SubnetId"]) for e in answer["Errors"]]
    assert errors == [
        ("InsufficientInstanceCapacity", SUBNET_A), ("InsufficientInstanceCapacity", SUBNET_B),
    ], errors
    ids = sorted(i for entry in answer["Instances"] for i in entry["InstanceIds"])
    assert by(ec2, "tag:aws:ec2:fleet-id", answer["FleetId"]) == ids
    assert by(ec2, "tag:request", "r1") == ids
    assert ec2.create_fleet(**request)["FleetId"] == answer["FleetId"]
    assert len(by(ec2, "tag-key", "request")) == 5, "the token launches nothing twice"
    refused("IdempotentParameterMismatch", ec2.create_fleet, **fleet_request(6, ClientToken="fleet-1"))

    spot = fleet_request(2, "spot", SpotOptions={"AllocationStrategy": "price-capacity-optimized"})
    launched = ec2.create_fleet(**spot)
    assert {i["Lifecycle"] for i in launched["Instances"]} == {"spot"}, launched
    spot = fleet_request(4, "spot", SpotOptions={"AllocationStrategy": "diversified"})
    launched = ec2.create_fleet(**spot)
    assert sorted(len(i["InstanceIds"]) for i in launched["Instances"]) == [1, 1, 1, 1], launched

    gang = {"SingleInstanceType": True, "SingleAvailabilityZone": True, "MinTargetCapacity": 4}
    only = [{"InstanceType": "c7i.large", "SubnetId": s} for s in (SUBNET_A, SUBNET_B)]
    request = fleet_request(4, OnDemandOptions=gang)
    request["LaunchTemplateConfigs"][0]["Overrides"] = only
    nothing = ec2.create_fleet(**request)
    assert nothing["Instances"] == [] and nothing["Errors"], nothing
    refused("InvalidParameterValue", ec2.create_fleet, **(fleet_request(1) | {"Type": "maintain"}))
    refused("InvalidParameterCombination", ec2.create_fleet, **fleet_request(1, OnDemandOptions={"MinTargetCapacity": 1}))
    refused("DryRunOperation", ec2.create_fleet, **fleet_request(1, DryRun=True))
    too_many = {"SingleInstanceType": True, "MinTargetCapacity": 1001}
    refused("InvalidParameterValue", ec2.create_fleet, **fleet_request(1, OnDemandOptions=too_many))

    # The gang of one zone that fits, and errors that name the zone because the override does.
    zones = {SUBNET_A: "us-east-1a", SUBNET_B: "us-east-1b"}
    request = fleet_request(4, OnDemandOptions={"SingleAvailabilityZone": True, "MinTargetCapacity": 4})
    for over in request["LaunchTemplateConfigs"][0]["Overrides"]:
        over["AvailabilityZone"] = zones[over["SubnetId"]]
    answer = ec2.create_fleet(**request)
    assert [(i["AvailabilityZone"], len(i["InstanceIds"])) for i in answer["Instances"]] == [("us-east-1a", 4)], answer
    assert answer["Errors"][0]["LaunchTemplateAndOverrides"]["Overrides"] == {
        "InstanceType": "c7i.large", "SubnetId": SUBNET_A, "AvailabilityZone": "us-east-1a",
    }, answer

    # An m7i.large costs 0.1008 dollars an hour on demand: two of three are within the price.
    dear = {"AllocationStrategy": "lowest-price", "MaxTotalPrice": "0.25",
            "CapacityReservationOptions": {"UsageStrategy": "use-capacity-reservations-first"}}
    answer = ec2.create_fleet(**fleet_request(3, OnDemandOptions=dear))
    got = [(i["InstanceType"], len(i["InstanceIds"])) for i in answer["Instances"]]
    assert got == [("m7i.large", 2)] and "UnfulfillableCapacity" in {e["ErrorCode"] for e in answer["Errors"]}, answer
    refused("InvalidParameterValue", ec2.create_fleet, **fleet_request(1, OnDemandOptions={"MaxTotalPrice": "low"}))


def surroundings(ec2):
    """Subnets, zones, instance types, prices, launch templates."""
    found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": ["vpc-lab"]}])["Subnets"]
    assert [s["SubnetId"] for s in found] == [SUBNET_A, SUBNET_B, "subnet-tiny"]
    assert found[2]["AvailableIpAddressCount"] == 11 and found[2]["CidrBlock"] == "172.16.0.0/28"
    refused("InvalidSubnetID.NotFound", ec2.describe_subnets, SubnetIds=["subnet-none"])
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [(z["ZoneName"], z["ZoneId"]) for z in zones] == [("us-east-1a", "use1-az1"), ("us-east-1b", "use1-az2")]
    types = ec2.describe_instance_types(InstanceTypes=["c7i.48xlarge", "t3.micro", "m7g.xlarge"])["InstanceTypes"]
    sizes = {
        t["InstanceType"]: (
            t["VCpuInfo"]["DefaultVCpus"], t["MemoryInfo"]["SizeInMiB"], t["ProcessorInfo"]["SupportedArchitectures"][0],
        )
        for t in types
    }
    assert sizes == {
        "c7i.48xlarge": (192, 393_216, "x86_64"), "t3.micro": (2, 1024, "x86_64"), "m7g.xlarge": (4, 16_384, "arm64"),
    }, sizes
    pages = list(ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 20}))
    assert len(pages) > 2 and all(len(p["InstanceTypes"]) <= 20 for p in pages)
    prices = ec2.describe_spot_price_history(InstanceTypes=["c7i.large"], ProductDescriptions=["Linux/UNIX"])
    assert len(prices["SpotPriceHistory"]) == 2
    assert all(0 < float(p["SpotPrice"]) < 0.08925 for p in prices["SpotPriceHistory"])
    template = ec2.describe_launch_templates(LaunchTemplateNames=["burst"])["LaunchTemplates"][0]
    assert (template["DefaultVersionNumber"], template["LatestVersionNumber"]) == (1, 2)
    versions = ec2.describe_launch_template_versions(LaunchTemplateName="burst")["LaunchTemplateVersions"]
    assert [v["VersionNumber"] for v in versions] == [2, 1]
    assert [v["DefaultVersion"] for v in versions] == [False, True]
    data = versions[0]["LaunchTemplateData"]
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert data["TagSpecifications"][0]["Tags"] == [{"Key": "from-template", "Value": "yes"}]
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    latest = ec2.describe_launch_template_versions(LaunchTemplateName="burst", Versions=["$Latest"])
    assert latest["LaunchTemplateVersions"][0]["VersionNumber"] == 2


def limits(ec2):
    """The default token buckets: five RunInstances at once, then two a second."""
    answers = []
    for _ in range(40):
        try:
            run(ec2, 1)
            answers.append("ok")
        except ClientError as error:
            answers.append(error.response["Error"]["Code"])
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert answers[:5] == ["ok"] * 5, answers
    assert "RequestLimitExceeded" in answers, answers


if __name__ == "__main__":
    case, endpoint = sys.argv[1:]
    client = boto3.client(
        "ec2",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )
    cases = [life, search, refusals, fleet, throttled_fleet, surroundings, limits]
    next(c for c in cases if c.__name__ == case)(client)
