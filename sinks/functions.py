"""The functions that an auditor's question may call; the only place for that list. None reads a file, a host or another
table.

Names are compared without regard to case. Aggregates also go with the combinators below: `sumIf`, `uniqExactArray`.
"""

from typing import Final

_OPERATORS: Final = """
    equals notequals less greater lessorequals greaterorequals and or not xor in notin globalin globalnotin
    nullin notnullin like notlike ilike notilike match between plus minus multiply divide intdiv intdivorzero
    modulo modulo negate isnull isnotnull isdistinctfrom isnotdistinctfrom if multiif ifnull nullif coalesce
    assumenotnull tonullable exists case casewithexpression tuple array map arrayelement tupleelement lambda
    cast _cast accuratecast accuratecastornull identity materialize least greatest isnan isfinite isinfinite
    iszeroornull empty notempty length concat tostring transform
    """
_NUMBERS: Final = """
    abs sign sqrt cbrt exp exp2 exp10 ln log log2 log10 pow power floor ceil ceiling round roundbankers trunc
    truncate gcd lcm bitand bitor bitxor bitnot bitshiftleft bitshiftright bittest bitcount max2 min2
    width_bucket toint8 toint16 toint32 toint64 toint128 toint256 touint8 touint16 touint32 touint64 touint128
    touint256 tofloat32 tofloat64 toint8ornull toint16ornull toint32ornull toint64ornull touint8ornull
    touint32ornull touint64ornull tofloat64ornull toint32orzero toint64orzero touint64orzero tofloat64orzero
    todecimal32 todecimal64 todecimal128 tobool
    """
_TEXT: Final = """
    lower upper lowerutf8 upperutf8 lcase ucase trim trimleft trimright trimboth ltrim rtrim substring substr
    mid substringutf8 left right leftutf8 rightutf8 lengthutf8 char_length character_length position
    positioncaseinsensitive positionutf8 positioncaseinsensitiveutf8 locate startswith endswith hastoken
    hastokencaseinsensitive multisearchany multisearchallpositions multisearchfirstindex countsubstrings
    countsubstringscaseinsensitive replace replaceone replaceall replaceregexpone replaceregexpall regexpextract
    regexp_replace extract extractall extractgroups extractallgroups splitbychar splitbystring splitbyregexp
    splitbywhitespace splitbynonalpha arraystringconcat concatwithseparator concat_ws repeat reverse reverseutf8
    leftpad rightpad leftpadutf8 rightpadutf8 lpad rpad initcap ascii char hex unhex bin base64encode
    base64decode trybase64decode tovalidutf8 isvalidutf8 appendtrailingcharifabsent format formatreadablesize
    formatreadablequantity formatreadabletimedelta ngrams tokens levenshteindistance editdistance soundex
    """
_DIGESTS: Final = """
    md5 sha1 sha224 sha256 sha512 siphash64 siphash128 cityhash64 xxhash32 xxhash64 crc32 crc64 halfmd5
    murmurhash3_64
    """
_TIMES: Final = """
    now now64 today yesterday todate todate32 todatetime todatetime64 todateornull todatetimeornull
    todatetime64ornull parsedatetime parsedatetimebesteffort parsedatetimebesteffortornull
    parsedatetime64besteffort fromunixtimestamp fromunixtimestamp64milli fromunixtimestamp64micro
    tounixtimestamp tounixtimestamp64milli tounixtimestamp64micro toyear toquarter tomonth toweek toisoweek
    toisoyear todayofyear todayofmonth todayofweek tohour tominute tosecond tomillisecond year quarter month
    week day dayofmonth dayofweek dayofyear hour minute second tostartofyear tostartofquarter tostartofmonth
    tostartofweek tostartofday tostartofhour tostartofminute tostartofsecond tostartoffiveminutes
    tostartoftenminutes tostartoffifteenminutes tostartofinterval tomonday tolastdayofmonth toyyyymm toyyyymmdd
    toyyyymmddhhmmss totime totimezone timezone timezoneof datediff date_diff timestampdiff age date_trunc
    datetrunc dateadd datesub date_add date_sub timestampadd timestamp_add adddays addhours addminutes
    addseconds addmilliseconds addweeks addmonths addyears subtractdays subtracthours subtractminutes
    subtractseconds subtractweeks subtractmonths subtractyears formatdatetime datename monthname tointervalyear
    tointervalquarter tointervalmonth tointervalweek tointervalday tointervalhour tointervalminute
    tointervalsecond tointervalmillisecond timeslot makedate makedatetime
    """
_COLLECTIONS: Final = """
    has hasall hasany hassubstr indexof countequal arraymap arrayfilter arrayexists arrayall arraycount arraysum
    arrayavg arraymin arraymax arrayproduct arrayfirst arrayfirstindex arrayfirstornull arraylast arraylastindex
    arraylastornull arraysort arrayreversesort arraypartialsort arrayreverse arraydistinct arrayuniq arrayconcat
    arrayslice arraypushback arraypushfront arraypopback arraypopfront arrayresize arrayflatten flatten arrayzip
    arrayenumerate arrayenumerateuniq arrayenumeratedense arrayjoin arraycompact arrayintersect arrayunion
    arrayexcept arraydifference arraycumsum arrayfold arrayreduce arraysplit arrayreversesplit arraywithconstant
    range emptyarraystring emptyarrayint64 emptyarrayuint64 tuplenames untuple tuplehammingdistance mapkeys
    mapvalues mapcontains mapcontainskey mapfromarrays mapapply mapfilter mapadd mapsort grouping
    tolowcardinality
    """
_JSON: Final = """
    jsonhas jsonlength jsontype jsonkey jsonextract jsonextractstring jsonextractint jsonextractuint
    jsonextractfloat jsonextractbool jsonextractraw jsonextractarrayraw jsonextractkeys jsonextractkeysandvalues
    jsonextractkeysandvaluesraw json_value json_query json_exists isvalidjson tojsonstring
    simplejsonextractstring simplejsonextractint simplejsonhas
    """
_OTHER: Final = """
    ipv4numtostring ipv4stringtonum ipv6numtostring ipv6stringtonum toipv4 toipv6 isipv4string isipv6string
    isipaddressinrange touuid touuidornull tofixedstring totypename rownumberinallblocks bar
    """
_AGGREGATES: Final = """
    count sum avg min max any anylast any_value first_value last_value argmin argmax uniq uniqexact uniqcombined
    uniqhll12 countdistinct sumdistinct avgdistinct median quantile quantiles quantileexact quantilesexact
    quantiletdigest topk topkweighted grouparray groupuniqarray grouparraysample grouparraysorted
    grouparraymovingsum grouparraymovingavg grouparrayinsertat groupbitand groupbitor groupbitxor groupconcat
    string_agg summap minmap maxmap stddevpop stddevsamp varpop varsamp covarpop covarsamp corr skewpop kurtpop
    entropy avgweighted sumwithoverflow sumkahan deltasum boundingratio simplelinearregression histogram
    sequencematch sequencecount windowfunnel retention singlevalueornull
    """
_WINDOWS: Final = """
    row_number rank dense_rank denserank percent_rank percentrank cume_dist ntile lag lead laginframe
    leadinframe nth_value nonnegativederivative
    """
_COMBINATORS: Final = ("if", "array", "distinct", "ornull", "ordefault", "map")
AGGREGATES: Final = frozenset(_AGGREGATES.split())
FUNCTIONS: Final = AGGREGATES | frozenset(
    f"{_OPERATORS}{_NUMBERS}{_TEXT}{_DIGESTS}{_TIMES}{_COLLECTIONS}{_JSON}{_OTHER}{_WINDOWS}".split()
)
# Functions that stand in FROM and make rows of nothing but their arguments.
ROW_MAKERS: Final = frozenset({"numbers"})


def is_allowed(name: str) -> bool:
    """Whether a question may call the function `name`, with its combinators taken off."""
    name = name.lower()
    while name not in FUNCTIONS:
        ending = next((each for each in _COMBINATORS if name.endswith(each) and len(name) > len(each)), None)
        if ending is None:
            return False
        name = name.removesuffix(ending)
        if name in FUNCTIONS:
            return name in AGGREGATES
    return True
